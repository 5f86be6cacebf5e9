import { isPosternError, PosternError } from '../../shared/errors.ts';
import { ByteBudget } from '../../shared/objects/budget.ts';
import { checkedStore } from '../../shared/objects/checked.ts';
import { SYSTEM_CLOCK } from '../../shared/objects/clock.ts';
import { withDeadline } from '../../shared/objects/deadline.ts';
import { ambiguous, corrupt, unavailable } from '../../shared/objects/failure.ts';
import { limitedStore } from '../../shared/objects/limit.ts';
import {
  type ByteRange,
  LIST_MAX_KEYS,
  type ListOptions,
  type ObjectPage,
  type ObjectStore,
  type StoreOptions,
} from '../../shared/objects/store.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import type { ObjectReply, ObjectRequest } from '../../shared/wire/object.ts';
import { decodePage } from '../../shared/wire/object-page.ts';
import { ObjectConnection } from './connection.ts';
import { mostBytes } from './expected.ts';
import type { Answer } from './outstanding.ts';

/** One carries bulk while the other answers small requests; more only cost memory. */
export const RELAY_STREAMS = 2;
/** At the parent at once, on each stream; half of what a parent allows, so that cancelled ones have room. */
export const RELAY_REQUESTS_PER_STREAM = 32;
/** Calls that wait for their turn: every page of a large read-ahead. */
export const RELAY_MAX_WAITING = 4096;
/** Memory for answers under way: three of the largest objects, or hundreds of frames. */
export const RELAY_BUDGET_BYTES = 64 * 1024 * 1024;
/** From call to answer; a retrying store above starts over after it. */
export const RELAY_TIMEOUT_MS = 20_000;
export const RELAY_GREETING_TIMEOUT_MS = 5_000;
/** A call takes an idle stream that is not open yet only when the open ones have more than this to move. */
const OPEN_ANOTHER_BYTES = 256 * 1024;

export interface RelayOptions {
  /** Opens a stream of kind `object`, proven and answered with ok. */
  open(): Promise<Stream>;
  readonly streamCount?: number;
  readonly timeoutMs?: number;
  readonly budgetBytes?: number;
}

/** The parent's objects. Closing it ends the streams; a call after that opens them anew. */
export interface Relay {
  readonly store: ObjectStore;
  close(): void;
}

/**
 * The object store that the parent relays, over one stream or a few. It believes nothing: what breaks the protocol is
 * ERR_STORE_CORRUPT and ends the stream. Lost streams are opened again by the next call; retries are the business of a
 * retrying store above.
 */
export function connectRelay(options: RelayOptions): Relay {
  const relay = new RelayStore(options);
  const concurrency = RELAY_REQUESTS_PER_STREAM * (options.streamCount ?? RELAY_STREAMS);
  const limited = limitedStore(relay, { concurrency, waiting: RELAY_MAX_WAITING });
  return { store: checkedStore(limited), close: () => relay.close() };
}

type Slot =
  | { readonly state: 'closed' }
  | { readonly state: 'opening'; readonly opening: Promise<ObjectConnection> }
  | { readonly state: 'open'; readonly connection: ObjectConnection };

class RelayStore implements ObjectStore {
  readonly #open: () => Promise<Stream>;
  readonly #timeoutMs: number;
  readonly #budget: ByteBudget;
  readonly #slots: Slot[];

  constructor(options: RelayOptions) {
    this.#open = () => options.open();
    this.#timeoutMs = options.timeoutMs ?? RELAY_TIMEOUT_MS;
    this.#budget = new ByteBudget(options.budgetBytes ?? RELAY_BUDGET_BYTES, RELAY_MAX_WAITING);
    this.#slots = Array.from({ length: options.streamCount ?? RELAY_STREAMS }, () => ({ state: 'closed' }));
  }

  async putIfAbsent(key: string, bytes: Buffer, options?: StoreOptions): Promise<'created' | 'exists'> {
    const { reply } = await this.#call({ op: 'put', key, sizeBytes: bytes.length }, bytes, options);
    if (reply.status === 'created' || reply.status === 'exists') return reply.status;
    throw failureOf('put', reply);
  }

  async get(
    key: string,
    options?: StoreOptions & { readonly range?: ByteRange },
  ): Promise<Buffer | undefined> {
    const range = options?.range;
    const request =
      range === undefined ? ({ op: 'get', key } as const) : ({ op: 'get', key, range } as const);
    const { reply, body } = await this.#call(request, NOTHING, options);
    if (reply.status === 'absent') return undefined;
    if (reply.status === 'found') return body;
    throw failureOf('get', reply);
  }

  async head(key: string, options?: StoreOptions): Promise<{ readonly sizeBytes: number } | undefined> {
    const { reply } = await this.#call({ op: 'head', key }, NOTHING, options);
    if (reply.status === 'absent') return undefined;
    if (reply.status === 'size') return { sizeBytes: reply.sizeBytes };
    throw failureOf('head', reply);
  }

  async list(prefix: string, options?: StoreOptions & ListOptions): Promise<ObjectPage> {
    const { after = '', limit = LIST_MAX_KEYS } = options ?? {};
    const { reply, body } = await this.#call({ op: 'list', prefix, after, limit }, NOTHING, options);
    if (reply.status !== 'page') throw failureOf('list', reply);
    return { objects: pageOf(body, reply.count), truncated: reply.truncated };
  }

  async delete(key: string, options?: StoreOptions): Promise<void> {
    const { reply } = await this.#call({ op: 'delete', key }, NOTHING, options);
    if (reply.status !== 'deleted') throw failureOf('delete', reply);
  }

  close(): void {
    for (const [index, slot] of this.#slots.entries()) {
      if (slot.state === 'open') slot.connection.close();
      if (slot.state === 'opening') void slot.opening.then((connection) => connection.close(), ignore);
      this.#slots[index] = { state: 'closed' };
    }
  }

  async #call(request: ObjectRequest, sending: Buffer, options: StoreOptions | undefined): Promise<Answer> {
    const late = (): unknown => unavailable(`no answer within ${this.#timeoutMs} ms`);
    return withDeadline(SYSTEM_CLOCK, this.#timeoutMs, options?.signal, late, async (signal) => {
      const answerBytes = request.op === 'put' ? 0 : mostBytes(request);
      await this.#budget.acquire(answerBytes, signal);
      try {
        const connection = await abortable(this.#connection(), signal);
        return await connection.call(request, sending, signal);
      } finally {
        this.#budget.release(answerBytes);
      }
    });
  }

  /** The connection with the least to do, or a new one where every other has much. */
  async #connection(): Promise<ObjectConnection> {
    let best = 0;
    let bestBytes = Number.POSITIVE_INFINITY;
    for (const [index, slot] of this.#slots.entries()) {
      const lost = slot.state === 'open' && !slot.connection.isUsable;
      if (lost) this.#slots[index] = { state: 'closed' };
      const loadBytes = slot.state === 'open' && !lost ? slot.connection.loadBytes : OPEN_ANOTHER_BYTES;
      if (loadBytes < bestBytes) [best, bestBytes] = [index, loadBytes];
    }
    const slot = this.#slots[best] ?? { state: 'closed' };
    if (slot.state === 'open') return slot.connection;
    return slot.state === 'opening' ? slot.opening : this.#openSlot(best);
  }

  #openSlot(index: number): Promise<ObjectConnection> {
    const opening = this.#greet();
    const slot: Slot = { state: 'opening', opening };
    this.#slots[index] = slot;
    opening.then(
      (connection) => {
        if (this.#slots[index] === slot) this.#slots[index] = { state: 'open', connection };
      },
      () => {
        if (this.#slots[index] === slot) this.#slots[index] = { state: 'closed' };
      },
    );
    return opening;
  }

  async #greet(): Promise<ObjectConnection> {
    try {
      return await ObjectConnection.greet(await this.#open(), RELAY_GREETING_TIMEOUT_MS);
    } catch (error) {
      if (!isPosternError(error)) throw error;
      if (error.code === 'ERR_FLOW_DENIED') {
        throw new PosternError('ERR_STORE_DENIED', 'the parent grants no objects', { cause: error });
      }
      if (error.code === 'ERR_STORE_CORRUPT') throw error;
      if (error.code === 'ERR_WIRE_VERSION') {
        throw new PosternError('ERR_STORE_DENIED', error.message, { cause: error });
      }
      throw unavailable(`no object stream: ${error.message}`, error);
    }
  }
}

const NOTHING = Buffer.alloc(0);

function ignore(): void {}

/** Waits no longer than the signal; what was waited for goes on. */
function abortable<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(unavailable('no object stream in time', signal.reason));
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

function pageOf(body: Buffer, count: number): ObjectPage['objects'] {
  try {
    return decodePage(body, count);
  } catch (error) {
    if (!isPosternError(error)) throw error;
    throw corrupt(error.message, error);
  }
}

function failureOf(op: ObjectRequest['op'], reply: ObjectReply): PosternError {
  const message = `parent: ${'detail' in reply && reply.detail !== '' ? reply.detail : reply.status}`;
  switch (reply.status) {
    case 'ambiguous':
      return op === 'put' ? ambiguous(message) : unavailable(message);
    case 'denied':
      return new PosternError('ERR_STORE_DENIED', message);
    case 'limit':
      return new PosternError('ERR_STORE_LIMIT', message);
    case 'corrupt':
      return corrupt(message);
    default:
      return unavailable(message);
  }
}
