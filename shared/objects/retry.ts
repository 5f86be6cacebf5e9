import { isPosternError, type PosternError } from '../errors.ts';
import type { StoreCall } from './around.ts';
import { wrapStore } from './around.ts';
import { compareObject } from './claim.ts';
import { type Clock, SYSTEM_CLOCK } from './clock.ts';
import { withDeadline } from './deadline.ts';
import { ambiguous, isRetryable, unavailable, withSignal } from './failure.ts';
import type { Random } from './random.ts';
import type { ObjectStore, StoreOptions } from './store.ts';

/** From the first failure to giving up: longer than a parent's restart, shorter than a kernel's patience with a disk. */
export const RETRY_DEADLINE_MS = 30_000;
/** One attempt of 16 MiB over a slow link; after it the attempt is given up and counts as failed. */
export const RETRY_ATTEMPT_MS = 10_000;
/** First pause: a conflict of two writers is over by then. */
export const RETRY_FIRST_PAUSE_MS = 20;
/** Longest pause: a store that is back is noticed within this. */
export const RETRY_MAX_PAUSE_MS = 2_000;

export interface RetryOptions {
  readonly deadlineMs?: number;
  readonly attemptMs?: number;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Told of each failed attempt that another will follow. */
  readonly onRetry?: (call: StoreCall, error: PosternError, attemptCount: number) => void;
}

/** What the attempts so far came to; a PUT that was `ambiguous` once stays so. */
type Before = 'nothing' | 'unavailable' | 'ambiguous';
type Attempt<T> = (signal: AbortSignal, before: Before) => Promise<T>;

/**
 * Tries again what is worth it, with full-jitter pauses, until a deadline. A PUT in doubt is settled by reading: equal
 * bytes are `created`, others `exists`, nothing is put again. So after a failed attempt `exists` never means "my own".
 * @returns a store that throws ERR_STORE_UNAVAILABLE or ERR_STORE_AMBIGUOUS only after the deadline
 */
export function retryingStore(inner: ObjectStore, options: RetryOptions = {}): ObjectStore {
  const retry = new Retry(options);
  const store = wrapStore(inner, (call, run) => retry.attempt(call, (signal) => run(signal)));
  return {
    ...store,
    putIfAbsent(key, bytes, putOptions) {
      const call: StoreCall = {
        operation: 'put',
        key,
        sentBytes: bytes.length,
        signal: putOptions?.signal,
      };
      return retry.attempt(call, (signal, before) =>
        putAgain(inner, key, bytes, withSignal(putOptions, signal), before),
      );
    },
  };
}

/** One attempt of a PUT, after `before`. */
async function putAgain(
  store: ObjectStore,
  key: string,
  bytes: Buffer,
  options: StoreOptions,
  before: Before,
): Promise<'created' | 'exists'> {
  // A read costs less than the same bytes once more, where they may have arrived.
  let found = before === 'ambiguous' ? await compareObject(store, key, bytes, options) : 'absent';
  if (found === 'absent') {
    const answer = await store.putIfAbsent(key, bytes, options);
    if (answer === 'created' || before === 'nothing') return answer;
    // A failed attempt may have arrived late: what exists may be this caller's own.
    found = await compareObject(store, key, bytes, options);
  }
  if (found === 'absent') throw ambiguous(`${key}: exists for a PUT and not for a GET`);
  return found === 'same' ? 'created' : 'exists';
}

class Retry {
  readonly #deadlineMs: number;
  readonly #attemptMs: number;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #onRetry: RetryOptions['onRetry'];

  constructor(options: RetryOptions) {
    this.#deadlineMs = options.deadlineMs ?? RETRY_DEADLINE_MS;
    this.#attemptMs = options.attemptMs ?? RETRY_ATTEMPT_MS;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    this.#random = options.random ?? Math.random;
    this.#onRetry = options.onRetry;
  }

  async attempt<T>(call: StoreCall, run: Attempt<T>): Promise<T> {
    const endMs = this.#clock.nowMs() + this.#deadlineMs;
    let before: Before = 'nothing';
    for (let attemptCount = 1; ; attemptCount += 1) {
      const leftMs = endMs - this.#clock.nowMs();
      try {
        const limitMs = Math.min(this.#attemptMs, leftMs);
        const late = (): unknown => unavailable(`no answer within ${limitMs} ms`);
        const now = before;
        return await withDeadline(this.#clock, limitMs, call.signal, late, (signal) => run(signal, now));
      } catch (error) {
        if (!isRetryable(error)) throw error;
        if (before !== 'ambiguous') {
          before = isPosternError(error, 'ERR_STORE_AMBIGUOUS') ? 'ambiguous' : 'unavailable';
        }
        const pauseMs = this.#pauseMs(attemptCount);
        const over = this.#clock.nowMs() + pauseMs >= endMs || call.signal?.aborted === true;
        if (over) throw this.#gaveUp(call, attemptCount, before, error);
        this.#onRetry?.(call, error as PosternError, attemptCount);
        await this.#clock.sleep(pauseMs, call.signal);
        if (call.signal?.aborted) throw this.#gaveUp(call, attemptCount, before, error);
      }
    }
  }

  #pauseMs(attemptCount: number): number {
    const ceilingMs = Math.min(RETRY_MAX_PAUSE_MS, RETRY_FIRST_PAUSE_MS * 2 ** Math.min(attemptCount, 16));
    return this.#random() * ceilingMs;
  }

  #gaveUp(call: StoreCall, attemptCount: number, before: Before, cause: unknown): PosternError {
    const times = attemptCount === 1 ? 'one attempt' : `${attemptCount} attempts`;
    const message = `${call.operation} ${call.key}: given up after ${times}`;
    return call.operation === 'put' && before === 'ambiguous'
      ? ambiguous(message, cause)
      : unavailable(message, cause);
  }
}
