import { isPosternError } from '../../shared/errors.ts';
import { recycleBody } from '../../shared/objects/bodies.ts';
import type { ByteBudget } from '../../shared/objects/budget.ts';
import { checkObjectSize, checkRange } from '../../shared/objects/checked.ts';
import { unavailable } from '../../shared/objects/failure.ts';
import { OBJECT_MAX_BYTES, type ObjectStore } from '../../shared/objects/store.ts';
import type { FailureStatus, ObjectReply, ObjectRequest } from '../../shared/wire/object.ts';
import { encodePage, PAGE_MAX_BYTES } from '../../shared/wire/object-page.ts';
import type { ObjectWriter } from '../../shared/wire/object-writer.ts';
import { Cancelled, type IncomingBody, incomingBody } from './incoming-body.ts';

export interface OperationsOptions {
  readonly store: ObjectStore;
  readonly bodyTimeoutMs: number;
}

/** A request under way. */
export interface Served {
  readonly controller: AbortController;
  body?: IncomingBody;
}

/** Does at the store what requests of one stream ask, within the guest's memory, and writes the answers. */
export class Operations {
  readonly #writer: ObjectWriter;
  readonly #options: OperationsOptions;
  readonly #budget: ByteBudget;
  readonly #onSlowBody: (detail: string) => void;

  constructor(
    writer: ObjectWriter,
    options: OperationsOptions,
    budget: ByteBudget,
    onSlowBody: (detail: string) => void,
  ) {
    this.#writer = writer;
    this.#options = options;
    this.#budget = budget;
    this.#onSlowBody = onSlowBody;
  }

  /** Resolves when the last frame of the answer is with the stream. Rejects for bugs only. */
  async answer(requestId: number, request: ObjectRequest, served: Served): Promise<void> {
    try {
      await this.#run(requestId, request, served);
    } catch (error) {
      await this.#reply(requestId, failureReply(error));
    }
  }

  async #run(requestId: number, request: ObjectRequest, served: Served): Promise<void> {
    const { store } = this.#options;
    const { signal } = served.controller;
    switch (request.op) {
      case 'put':
        return this.#put(requestId, request, served);
      case 'get':
        return this.#get(requestId, request, signal);
      case 'list':
        return this.#list(requestId, request, signal);
      case 'head': {
        const head = await store.head(request.key, { signal });
        return this.#reply(
          requestId,
          head === undefined ? { status: 'absent' } : { status: 'size', ...head },
        );
      }
      case 'delete':
        await store.delete(request.key, { signal });
        return this.#reply(requestId, { status: 'deleted' });
    }
  }

  async #put(
    requestId: number,
    request: Extract<ObjectRequest, { op: 'put' }>,
    served: Served,
  ): Promise<void> {
    const { key, sizeBytes } = request;
    checkObjectSize(sizeBytes);
    // Inline bodies are bounded by the number of requests.
    const budgetBytes = served.body === undefined ? sizeBytes : 0;
    await this.#budget.acquire(budgetBytes, served.controller.signal);
    try {
      if (served.body === undefined) {
        served.body = incomingBody(sizeBytes);
        await this.#writer.send({ type: 'grant', requestId });
      }
      await this.#bodyOf(served.body);
      const status = await this.#options.store.putIfAbsent(key, served.body.bytes, {
        signal: served.controller.signal,
      });
      // A PUT that failed may still be on its way somewhere, and one that met another object was perhaps refused before it
      // was read to its end.
      if (status === 'created') recycleBody(served.body.bytes);
      await this.#reply(requestId, { status });
    } finally {
      this.#budget.release(budgetBytes);
    }
  }

  async #bodyOf(body: IncomingBody): Promise<void> {
    const timer = setTimeout(() => {
      this.#onSlowBody(`a body that takes over ${this.#options.bodyTimeoutMs} ms`);
      body.complete.reject(unavailable('the body did not come in time'));
    }, this.#options.bodyTimeoutMs);
    try {
      await body.complete.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  async #get(
    requestId: number,
    request: Extract<ObjectRequest, { op: 'get' }>,
    signal: AbortSignal,
  ): Promise<void> {
    const { key, range } = request;
    if (range !== undefined) checkRange(range);
    await this.#withBudget(range?.length ?? OBJECT_MAX_BYTES, signal, async (shrink) => {
      const bytes = await this.#options.store.get(key, range === undefined ? { signal } : { signal, range });
      if (bytes === undefined) return this.#reply(requestId, { status: 'absent' });
      shrink(bytes.length);
      await this.#replyBody(requestId, { status: 'found', sizeBytes: bytes.length }, bytes);
    });
  }

  async #list(
    requestId: number,
    request: Extract<ObjectRequest, { op: 'list' }>,
    signal: AbortSignal,
  ): Promise<void> {
    const { prefix, after, limit } = request;
    await this.#withBudget(PAGE_MAX_BYTES, signal, async (shrink) => {
      const options = after === '' ? { signal, limit } : { signal, limit, after };
      const { objects, truncated } = await this.#options.store.list(prefix, options);
      const bytes = encodePage(objects);
      shrink(bytes.length);
      const reply = { status: 'page', sizeBytes: bytes.length, count: objects.length, truncated } as const;
      await this.#replyBody(requestId, reply, bytes);
    });
  }

  /** Sets memory aside before the store is asked, and gives back what the answer does not need. */
  async #withBudget(
    mostBytes: number,
    signal: AbortSignal,
    work: (shrink: (sizeBytes: number) => void) => Promise<void>,
  ): Promise<void> {
    await this.#budget.acquire(mostBytes, signal);
    let heldBytes = mostBytes;
    const shrink = (sizeBytes: number): void => {
      this.#budget.release(heldBytes - sizeBytes);
      heldBytes = sizeBytes;
    };
    try {
      await work(shrink);
    } finally {
      shrink(0);
    }
  }

  #reply(requestId: number, reply: ObjectReply): Promise<void> {
    return this.#writer.send({ type: 'reply', requestId, reply });
  }

  async #replyBody(requestId: number, reply: ObjectReply, bytes: Buffer): Promise<void> {
    await this.#reply(requestId, reply);
    if ((await this.#writer.sendBody(requestId, bytes)) === 'sent') {
      recycleBody(bytes);
      return;
    }
    await this.#reply(requestId, { status: 'cancelled', detail: '' });
  }
}

const FAILURES = new Map<string, FailureStatus>([
  ['ERR_STORE_UNAVAILABLE', 'unavailable'],
  ['ERR_STORE_AMBIGUOUS', 'ambiguous'],
  ['ERR_STORE_DENIED', 'denied'],
  ['ERR_STORE_LIMIT', 'limit'],
  ['ERR_STORE_CORRUPT', 'corrupt'],
]);

function failureReply(error: unknown): ObjectReply {
  if (error instanceof Cancelled) return { status: 'cancelled', detail: '' };
  const status = isPosternError(error) ? FAILURES.get(error.code) : undefined;
  if (status === undefined || !isPosternError(error)) throw error;
  return { status, detail: error.message };
}
