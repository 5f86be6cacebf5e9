import { isPosternError, PosternError } from '../../shared/errors.ts';
import type { StoreCall } from '../../shared/objects/around.ts';
import { recycleBody } from '../../shared/objects/bodies.ts';
import { claimObject } from '../../shared/objects/claim.ts';
import { isRetryable } from '../../shared/objects/failure.ts';
import { retryingStore } from '../../shared/objects/retry.ts';
import type { ByteRange, ObjectPage, ObjectStore } from '../../shared/objects/store.ts';
import type { VolumeEnvironment } from './environment.ts';
import type { VolumeLimits } from './limits.ts';

/** An answer of the wrong length is asked for again this often: a cut connection heals, a lying store does not. */
const CORRUPT_ATTEMPTS = 4;

/** What the store did for this volume since it was attached. */
export interface ObjectCounts {
  puts: number;
  putBytes: number;
  gets: number;
  getBytes: number;
  lists: number;
  deletes: number;
}

/**
 * One volume's objects: its prefix, its deadline, and the rules of create-only names. Retries until a deadline, then
 * throws ERR_VOLUME_UNAVAILABLE.
 */
export class VolumeObjects {
  readonly counts: ObjectCounts = { puts: 0, putBytes: 0, gets: 0, getBytes: 0, lists: 0, deletes: 0 };
  readonly #prefix: string;
  readonly #store: ObjectStore;
  /** Keys whose PUT took more than one attempt. */
  readonly #retried = new Set<string>();
  readonly #closing = new AbortController();

  /** `prefix`: without a slash at its end. */
  constructor(store: ObjectStore, prefix: string, limits: VolumeLimits, environment: VolumeEnvironment) {
    const { clock, jitter: random } = environment;
    const onRetry = (call: StoreCall): void => {
      if (call.operation === 'put') this.#retried.add(call.key);
    };
    this.#prefix = `${prefix}/`;
    const { attemptMs, outageTimeoutMs: deadlineMs } = limits;
    this.#store = retryingStore(store, { attemptMs, deadlineMs, clock, random, onRetry });
  }

  /** Ends what is under way; afterwards every call fails. */
  close(): void {
    this.#closing.abort();
  }

  /**
   * Takes the bytes over, to use their memory again.
   * @throws ERR_VOLUME_FENCED when other bytes have this name, ERR_VOLUME_UNAVAILABLE after the deadline.
   */
  async put(name: string, bytes: Buffer): Promise<void> {
    if ((await this.claim(name, bytes)) === 'taken') {
      throw new PosternError('ERR_VOLUME_FENCED', `${name} was written by another instance`);
    }
    // An attempt that was given up may be sending them still.
    if (!this.#retried.delete(this.#prefix + name)) recycleBody(bytes);
  }

  /** `stored`: the name holds these bytes; `taken`: others. */
  async claim(name: string, bytes: Buffer): Promise<'stored' | 'taken'> {
    this.counts.puts += 1;
    this.counts.putBytes += bytes.length;
    return this.#reached(name, () => claimObject(this.#store, this.#prefix + name, bytes, this.#signal));
  }

  /** Undefined: the store says that there is no such object, which is for the caller to judge. */
  async get(name: string, range?: ByteRange): Promise<Buffer | undefined> {
    const options = range === undefined ? this.#signal : { ...this.#signal, range };
    for (let attempt = 1; ; attempt += 1) {
      this.counts.gets += 1;
      try {
        const bytes = await this.#reached(name, () => this.#store.get(this.#prefix + name, options));
        this.counts.getBytes += bytes?.length ?? 0;
        return bytes;
      } catch (error) {
        if (!isPosternError(error, 'ERR_STORE_CORRUPT') || attempt === CORRUPT_ATTEMPTS) throw error;
      }
    }
  }

  /** As `get`, where absence is a broken promise of the store. @throws ERR_VOLUME_MISSING naming the object */
  async need(name: string, range?: ByteRange): Promise<Buffer> {
    const bytes = await this.get(name, range);
    if (bytes === undefined) throw new PosternError('ERR_VOLUME_MISSING', `the store has no object ${name}`);
    return bytes;
  }

  async sizeOf(name: string): Promise<number | undefined> {
    this.counts.gets += 1;
    return (await this.#reached(name, () => this.#store.head(this.#prefix + name, this.#signal)))?.sizeBytes;
  }

  /** One page of names (without the volume's prefix); a hint, since nothing proves that it is whole or true. */
  async list(prefix: string, after?: string): Promise<ObjectPage> {
    this.counts.lists += 1;
    const options = after === undefined ? this.#signal : { ...this.#signal, after: this.#prefix + after };
    const page = await this.#reached(prefix, () => this.#store.list(this.#prefix + prefix, options));
    const cut = this.#prefix.length;
    return {
      ...page,
      objects: page.objects.map(({ key, sizeBytes }) => ({ key: key.slice(cut), sizeBytes })),
    };
  }

  async delete(name: string): Promise<void> {
    this.counts.deletes += 1;
    await this.#reached(name, () => this.#store.delete(this.#prefix + name, this.#signal));
  }

  get #signal(): { readonly signal: AbortSignal } {
    return { signal: this.#closing.signal };
  }

  async #reached<T>(name: string, run: () => Promise<T>): Promise<T> {
    if (this.#closing.signal.aborted) throw new PosternError('ERR_VOLUME_CLOSED', 'the volume is closed');
    try {
      return await run();
    } catch (error) {
      if (!isRetryable(error)) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      throw new PosternError('ERR_VOLUME_UNAVAILABLE', `${name}: ${reason}`, { cause: error });
    }
  }
}
