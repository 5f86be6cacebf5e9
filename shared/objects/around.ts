import { withSignal } from './failure.ts';
import type { ObjectStore } from './store.ts';

export type StoreOperation = 'put' | 'get' | 'head' | 'list' | 'delete';
export const STORE_OPERATIONS: readonly StoreOperation[] = ['put', 'get', 'head', 'list', 'delete'];

/** One call on its way to a store. */
export interface StoreCall {
  readonly operation: StoreOperation;
  /** The key, or the prefix of a listing. */
  readonly key: string;
  /** Bytes of the object that the call carries; 0 but for a PUT. */
  readonly sentBytes: number;
  readonly signal: AbortSignal | undefined;
}

/** Runs the call once, many times or never; `run` takes the signal that the store is to see. */
export type Around = <T>(call: StoreCall, run: (signal: AbortSignal | undefined) => Promise<T>) => Promise<T>;

/** The same store with `around` about each of its calls: what decorators that treat all operations alike are made of. */
export function wrapStore(inner: ObjectStore, around: Around): ObjectStore {
  return {
    putIfAbsent: (key, bytes, options) =>
      around({ operation: 'put', key, sentBytes: bytes.length, signal: options?.signal }, (signal) =>
        inner.putIfAbsent(key, bytes, withSignal(options, signal)),
      ),
    get: (key, options) =>
      around({ operation: 'get', key, sentBytes: 0, signal: options?.signal }, (signal) =>
        inner.get(key, withSignal(options, signal)),
      ),
    head: (key, options) =>
      around({ operation: 'head', key, sentBytes: 0, signal: options?.signal }, (signal) =>
        inner.head(key, withSignal(options, signal)),
      ),
    list: (prefix, options) =>
      around({ operation: 'list', key: prefix, sentBytes: 0, signal: options?.signal }, (signal) =>
        inner.list(prefix, withSignal(options, signal)),
      ),
    delete: (key, options) =>
      around({ operation: 'delete', key, sentBytes: 0, signal: options?.signal }, (signal) =>
        inner.delete(key, withSignal(options, signal)),
      ),
  };
}
