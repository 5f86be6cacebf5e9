import type { StoreCall } from './around.ts';
import { type Clock, SYSTEM_CLOCK } from './clock.ts';
import { ambiguous, unavailable } from './failure.ts';
import { type Random, seededRandom } from './random.ts';
import type { ByteRange, ListOptions, ObjectPage, ObjectStore, StoreOptions } from './store.ts';

/** Keys that a stale listing may still miss, or still show; the older ones every listing has right. */
const STALE_MAX_KEYS = 256;

/** What can go wrong with a PUT, a GET, a LIST, a DELETE, and with any of them. See FaultyStore for what each does. */
export type Fault =
  | 'put-conflict'
  | 'put-applied-exists'
  | 'put-applied-error'
  | 'put-error'
  | 'put-late'
  | 'get-cut'
  | 'get-short'
  | 'list-stale'
  | 'delete-lost'
  | 'slow-down'
  | 'delay';

/** The probability of each fault, 0 to 1; one that is not named never happens. */
export type FaultRates = { readonly [fault in Fault]?: number };

export interface FaultOptions {
  readonly seed: number;
  readonly rates: FaultRates;
  readonly clock?: Clock;
  /** The longest `delay`, and how late `put-late` may arrive. */
  readonly maxDelayMs?: number;
  readonly onFault?: (fault: Fault, call: Pick<StoreCall, 'operation' | 'key'>) => void;
}

type Operation = StoreCall['operation'];

/**
 * A store that fails like real ones do, the same way each time for one seed and one order of calls:
 * - `put-conflict` (409), `put-error` (500): nothing is written, ERR_STORE_AMBIGUOUS;
 * - `put-applied-exists` (412 to its own retry), `put-applied-error` (500, time-out): written, and not said;
 * - `put-late`: ERR_STORE_AMBIGUOUS now, written some time after;
 * - `get-cut`: ERR_STORE_UNAVAILABLE in the middle; `get-short`: fewer bytes than asked for, as if they were all;
 * - `list-stale`: without recent objects, and with recently deleted ones; `delete-lost`: said and not done;
 * - `slow-down` (503): ERR_STORE_UNAVAILABLE; `delay`: done, later.
 * `get-short` breaks the interface: put a checked store above.
 */
export class FaultyStore implements ObjectStore {
  readonly #inner: ObjectStore;
  readonly #rates: FaultRates;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #maxDelayMs: number;
  readonly #onFault: FaultOptions['onFault'];
  readonly #recentPuts = new Set<string>();
  readonly #recentDeletes = new Map<string, number>();
  #unreachableUntilMs = Number.NEGATIVE_INFINITY;
  #faultsOn = true;

  constructor(inner: ObjectStore, options: FaultOptions) {
    this.#inner = inner;
    this.#rates = options.rates;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    this.#random = seededRandom(options.seed);
    this.#maxDelayMs = options.maxDelayMs ?? 1000;
    this.#onFault = options.onFault;
  }

  /** Out of reach from now on for that long (Infinity: until the next call of this). */
  setUnreachable(durationMs: number): void {
    this.#unreachableUntilMs = this.#clock.nowMs() + durationMs;
  }

  /** Switches the faults of the rates off and on; being out of reach is apart. */
  setFaults(on: boolean): void {
    this.#faultsOn = on;
  }

  async putIfAbsent(key: string, bytes: Buffer, options?: StoreOptions): Promise<'created' | 'exists'> {
    await this.#admit('put', key, options);
    if (this.#strikes('put-conflict', 'put', key))
      throw ambiguous(`${key}: 409, a conflicting write is under way`);
    if (this.#strikes('put-error', 'put', key)) throw ambiguous(`${key}: 500`);
    if (this.#strikes('put-late', 'put', key)) {
      const copy = Buffer.from(bytes);
      void this.#clock.sleep(this.#random() * this.#maxDelayMs).then(() => this.#put(key, copy));
      throw ambiguous(`${key}: no answer`);
    }
    const appliedExists = this.#strikes('put-applied-exists', 'put', key);
    const appliedError = this.#strikes('put-applied-error', 'put', key);
    const answer = await this.#put(key, bytes);
    if (appliedError) throw ambiguous(`${key}: 500 after the write`);
    return appliedExists ? 'exists' : answer;
  }

  async get(
    key: string,
    options?: StoreOptions & { readonly range?: ByteRange },
  ): Promise<Buffer | undefined> {
    await this.#admit('get', key, options);
    if (this.#strikes('get-cut', 'get', key)) throw unavailable(`${key}: the connection ended in the middle`);
    const bytes = await this.#inner.get(key, options);
    if (bytes === undefined || bytes.length === 0 || !this.#strikes('get-short', 'get', key)) return bytes;
    return bytes.subarray(0, Math.floor(this.#random() * bytes.length));
  }

  async head(key: string, options?: StoreOptions): Promise<{ readonly sizeBytes: number } | undefined> {
    await this.#admit('head', key, options);
    return this.#inner.head(key, options);
  }

  async list(prefix: string, options?: StoreOptions & ListOptions): Promise<ObjectPage> {
    await this.#admit('list', prefix, options);
    const page = await this.#inner.list(prefix, options);
    return this.#strikes('list-stale', 'list', prefix) ? this.#stale(page, prefix, options) : page;
  }

  async delete(key: string, options?: StoreOptions): Promise<void> {
    await this.#admit('delete', key, options);
    if (this.#strikes('delete-lost', 'delete', key)) return;
    const head = await this.#inner.head(key);
    await this.#inner.delete(key, options);
    this.#recentPuts.delete(key);
    if (head !== undefined) remember(this.#recentDeletes, key, head.sizeBytes);
  }

  async #put(key: string, bytes: Buffer): Promise<'created' | 'exists'> {
    const answer = await this.#inner.putIfAbsent(key, bytes);
    if (answer === 'created') {
      this.#recentDeletes.delete(key);
      this.#recentPuts.add(key);
      for (const oldest of this.#recentPuts) {
        if (this.#recentPuts.size <= STALE_MAX_KEYS) break;
        this.#recentPuts.delete(oldest);
      }
    }
    return answer;
  }

  /** What every call meets first: a store out of reach, slow, or overloaded. */
  async #admit(operation: Operation, key: string, options: StoreOptions | undefined): Promise<void> {
    if (this.#clock.nowMs() < this.#unreachableUntilMs) throw unavailable('the store is out of reach');
    if (this.#strikes('delay', operation, key)) {
      await this.#clock.sleep(this.#random() * this.#maxDelayMs, options?.signal);
      if (options?.signal?.aborted) throw unavailable('the caller gave up', options.signal.reason);
    }
    if (this.#strikes('slow-down', operation, key)) throw unavailable(`${key}: 503, slow down`);
  }

  #strikes(fault: Fault, operation: Operation, key: string): boolean {
    const rate = this.#rates[fault] ?? 0;
    if (rate === 0 || !this.#faultsOn || this.#random() >= rate) return false;
    this.#onFault?.(fault, { operation, key });
    return true;
  }

  #stale(page: ObjectPage, prefix: string, options: ListOptions | undefined): ObjectPage {
    const last = page.objects.at(-1)?.key;
    const objects = page.objects.filter(({ key }) => !this.#recentPuts.has(key) || this.#random() < 0.5);
    for (const [key, sizeBytes] of this.#recentDeletes) {
      const inPage = key.startsWith(prefix) && key > (options?.after ?? '');
      const before = !page.truncated || (last !== undefined && key < last);
      if (inPage && before && objects.every((other) => other.key !== key)) objects.push({ key, sizeBytes });
    }
    objects.sort((left, right) => (left.key < right.key ? -1 : 1));
    // The page's last key stays, or a walk could not go on behind it.
    const anchor = page.truncated ? page.objects.at(-1) : undefined;
    if (anchor !== undefined && objects.at(-1)?.key !== anchor.key) objects.push(anchor);
    return { objects: objects.slice(-(options?.limit ?? objects.length)), truncated: page.truncated };
  }
}

function remember(map: Map<string, number>, key: string, value: number): void {
  map.delete(key);
  map.set(key, value);
  const oldest = map.keys().next();
  if (map.size > STALE_MAX_KEYS && !oldest.done) map.delete(oldest.value);
}
