import { isPosternError, PosternError } from '../errors.ts';
import type { StoreOptions } from './store.ts';

/** Not done, and worth a retry. */
export function unavailable(message: string, cause?: unknown): PosternError {
  return new PosternError('ERR_STORE_UNAVAILABLE', message, { cause });
}

/** A PUT that may or may not have happened, now or later. */
export function ambiguous(message: string, cause?: unknown): PosternError {
  return new PosternError('ERR_STORE_AMBIGUOUS', message, { cause });
}

/** An answer that cannot be the store's. */
export function corrupt(message: string, cause?: unknown): PosternError {
  return new PosternError('ERR_STORE_CORRUPT', message, { cause });
}

/** Worth another attempt: not done, or not known whether done. */
export function isRetryable(error: unknown): boolean {
  return isPosternError(error, 'ERR_STORE_UNAVAILABLE') || isPosternError(error, 'ERR_STORE_AMBIGUOUS');
}

/**
 * A caller that gave up before anything was sent.
 * @throws PosternError ERR_STORE_UNAVAILABLE
 */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw unavailable('the caller gave up', signal.reason);
}

/** The options with another signal. */
export function withSignal<T extends StoreOptions>(
  options: T | undefined,
  signal: AbortSignal | undefined,
): T {
  const { signal: _, ...rest } = options ?? ({} as T);
  return (signal === undefined ? rest : { ...rest, signal }) as T;
}
