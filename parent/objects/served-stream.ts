import { isPosternError, PosternError } from '../../shared/errors.ts';
import { allocateBody, recycleBody } from '../../shared/objects/bodies.ts';
import type { ByteBudget } from '../../shared/objects/budget.ts';
import { checkObjectSize, checkRange } from '../../shared/objects/checked.ts';
import { unavailable } from '../../shared/objects/failure.ts';
import { receiveBytes } from '../../shared/objects/receive.ts';
import { OBJECT_MAX_BYTES, type ObjectStore } from '../../shared/objects/store.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import {
  type ByeReason,
  type FailureStatus,
  INLINE_MAX_BYTES,
  OBJECT_VERSION_MAX,
  OBJECT_VERSION_MIN,
  type ObjectFrame,
  type ObjectReply,
  type ObjectRequest,
} from '../../shared/wire/object.ts';
import { ObjectFrameDecoder } from '../../shared/wire/object-decoder.ts';
import { encodePage, PAGE_MAX_BYTES } from '../../shared/wire/object-page.ts';
import { ObjectWriter } from '../../shared/wire/object-writer.ts';
import type { ServedOutcome } from './service.ts';

/** For a BYE to reach a peer that reads; one that does not loses it. */
const BYE_LINGER_MS = 1000;

export interface ServedStreamOptions {
  readonly store: ObjectStore;
  readonly maxRequests: number;
  readonly helloTimeoutMs: number;
  readonly bodyTimeoutMs: number;
}

/** The body of a PUT while it comes in. */
interface IncomingBody {
  readonly bytes: Buffer;
  filledBytes: number;
  readonly complete: PromiseWithResolvers<void>;
}

interface Served {
  readonly controller: AbortController;
  body?: IncomingBody;
}

/**
 * The server's half of object.md over one stream. States: before HELLO (a timer runs), serving, and closed; a request
 * lives from its REQUEST until its last frame is with the stream, and counts against `maxRequests` for that time.
 */
export class ServedStream {
  readonly #stream: Stream;
  readonly #options: ServedStreamOptions;
  readonly #budget: ByteBudget;
  readonly #writer: ObjectWriter;
  readonly #decoder: ObjectFrameDecoder;
  readonly #requests = new Map<number, Served>();
  readonly #idle = new Set<Promise<void>>();
  readonly #bug = Promise.withResolvers<never>();
  #greeted = false;
  #lastRequestId = 0;
  #requestCount = 0;
  #violation: string | undefined;

  constructor(origin: Stream, options: ServedStreamOptions, budget: ByteBudget) {
    this.#decoder = new ObjectFrameDecoder({
      frame: (frame) => this.#onFrame(frame),
      data: (requestId, piece) => this.#onData(requestId, piece),
    });
    this.#stream = receiveBytes(origin, (piece) => this.#guard(() => this.#decoder.push(piece)));
    this.#options = options;
    this.#budget = budget;
    this.#writer = new ObjectWriter(this.#stream);
    this.#stream.on('error', () => {
      // 'close' follows, and says all that matters here.
    });
  }

  async run(): Promise<ServedOutcome> {
    const stream = this.#stream;
    const helloTimer = setTimeout(() => {
      if (!this.#greeted) this.#violate('malformed', 'no HELLO');
    }, this.#options.helloTimeoutMs);
    const closed = new Promise<void>((resolve) => stream.once('close', () => resolve()));
    stream.once('end', () => void this.#finish());
    stream.resume();
    try {
      if (!stream.destroyed) await Promise.race([closed, this.#bug.promise]);
    } finally {
      clearTimeout(helloTimer);
      stream.destroy();
      this.#abandon();
    }
    await Promise.race([Promise.all(this.#idle), this.#bug.promise]);
    return this.#outcome();
  }

  async refuse(detail: string): Promise<ServedOutcome> {
    this.#violate('limit', detail);
    return this.#outcome();
  }

  drain(): void {
    void this.#writer.send({ type: 'bye', reason: 'draining', detail: '' });
  }

  close(): void {
    this.#stream.destroy();
  }

  #outcome(): ServedOutcome {
    return { requestCount: this.#requestCount, violation: this.#violation };
  }

  /** The peer sends no more: what it asked for is still answered. */
  async #finish(): Promise<void> {
    if (!this.#decoder.isBetweenFrames) this.#violate('malformed', 'the stream ends inside a frame');
    for (const { body } of this.#requests.values()) {
      body?.complete.reject(unavailable('the stream ended before the body'));
    }
    await Promise.all(this.#idle);
    this.#stream.end();
  }

  /** The stream is closed. A PUT whose body is whole goes on: once it is done the guest finds it. */
  #abandon(): void {
    for (const { controller, body } of this.#requests.values()) {
      if (body !== undefined && body.filledBytes === body.bytes.length) continue;
      controller.abort(unavailable('the stream is closed'));
      body?.complete.reject(unavailable('the stream is closed'));
    }
  }

  #guard(work: () => void): void {
    if (this.#violation !== undefined) return;
    try {
      work();
    } catch (error) {
      if (!(error instanceof PosternError)) throw error;
      this.#violate('malformed', error.message);
    }
  }

  #violate(reason: ByeReason, detail: string): void {
    this.#violation ??= detail;
    void this.#writer.send({ type: 'bye', reason, detail }).then(() => this.#stream.end());
    setTimeout(() => this.#stream.destroy(), BYE_LINGER_MS).unref();
    this.#stream.resume();
  }

  #onFrame(frame: ObjectFrame): void {
    if (this.#violation !== undefined) return;
    if (!this.#greeted) {
      this.#onHello(frame);
      return;
    }
    if (frame.type === 'request') this.#onRequest(frame.requestId, frame.request);
    else if (frame.type === 'cancel') this.#onCancel(frame.requestId);
    else if (frame.type === 'bye') this.#stream.end();
    else this.#violate('malformed', `${frame.type} from a client`);
  }

  #onHello(frame: ObjectFrame): void {
    if (frame.type !== 'hello') {
      this.#violate('malformed', `${frame.type} before HELLO`);
      return;
    }
    const version = Math.min(frame.maxVersion, OBJECT_VERSION_MAX);
    if (version < frame.minVersion || version < OBJECT_VERSION_MIN) {
      this.#violate('version', `this side speaks ${OBJECT_VERSION_MIN} to ${OBJECT_VERSION_MAX}`);
      return;
    }
    this.#greeted = true;
    void this.#writer.send({ type: 'welcome', version, maxRequests: this.#options.maxRequests });
  }

  #onRequest(requestId: number, request: ObjectRequest): void {
    if (requestId <= this.#lastRequestId) {
      this.#violate('malformed', `request id ${requestId} again`);
      return;
    }
    this.#lastRequestId = requestId;
    if (this.#requests.size >= this.#options.maxRequests) {
      this.#violate('limit', `over ${this.#options.maxRequests} requests`);
      return;
    }
    this.#requestCount += 1;
    const served: Served = { controller: new AbortController() };
    this.#requests.set(requestId, served);
    const inline = request.op === 'put' && request.sizeBytes <= INLINE_MAX_BYTES;
    if (inline) served.body = incomingBody(request.sizeBytes);
    const work = this.#serve(requestId, request, served).catch((error: unknown) => this.#bug.reject(error));
    this.#idle.add(work);
    void work.then(() => this.#idle.delete(work));
  }

  #onCancel(requestId: number): void {
    const served = this.#requests.get(requestId);
    served?.controller.abort(unavailable('cancelled by the guest'));
    served?.body?.complete.reject(new Cancelled());
    this.#writer.dropBody(requestId);
  }

  #onData(requestId: number, piece: Buffer): void {
    if (this.#violation !== undefined) return;
    const body = this.#requests.get(requestId)?.body;
    if (body === undefined || body.filledBytes + piece.length > body.bytes.length) {
      this.#violate('malformed', `DATA that request ${requestId} has no place for`);
      return;
    }
    piece.copy(body.bytes, body.filledBytes);
    body.filledBytes += piece.length;
    if (body.filledBytes === body.bytes.length) body.complete.resolve();
  }

  async #serve(requestId: number, request: ObjectRequest, served: Served): Promise<void> {
    try {
      await this.#answer(requestId, request, served);
    } catch (error) {
      await this.#reply(requestId, failureReply(error));
    } finally {
      this.#requests.delete(requestId);
    }
  }

  async #answer(requestId: number, request: ObjectRequest, served: Served): Promise<void> {
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
      // Only after a plain answer: a PUT that failed may still be on its way somewhere.
      recycleBody(served.body.bytes);
      await this.#reply(requestId, { status });
    } finally {
      this.#budget.release(budgetBytes);
    }
  }

  async #bodyOf(body: IncomingBody): Promise<void> {
    const timer = setTimeout(() => {
      this.#violate('limit', `a body that takes over ${this.#options.bodyTimeoutMs} ms`);
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

/** The guest took its PUT back before its body was whole. */
class Cancelled extends Error {}

function incomingBody(sizeBytes: number): IncomingBody {
  const complete = Promise.withResolvers<void>();
  // A body that is given up while nobody waits for it yet is no unhandled rejection.
  complete.promise.catch(() => {});
  if (sizeBytes === 0) complete.resolve();
  return { bytes: allocateBody(sizeBytes), filledBytes: 0, complete };
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
