import PQueue from 'p-queue';
import { wrapStore } from './around.ts';
import { unavailable } from './failure.ts';
import type { ObjectStore } from './store.ts';

export interface ConcurrencyLimits {
  /** Calls at the store at once. */
  readonly concurrency: number;
  /** Calls that may wait for their turn; one more is refused at once with ERR_STORE_UNAVAILABLE. */
  readonly waiting: number;
}

/** At most so many calls at once, the others in the order they came; for each guest its own. */
export function limitedStore(inner: ObjectStore, limits: ConcurrencyLimits): ObjectStore {
  const queue = new PQueue({ concurrency: limits.concurrency });
  return wrapStore(inner, async (call, run) => {
    if (queue.size >= limits.waiting) throw unavailable(`${limits.waiting} calls wait for the store already`);
    const { signal } = call;
    if (signal?.aborted) throw unavailable('the caller gave up', signal.reason);
    if (queue.size === 0 && queue.pending < limits.concurrency) return queue.add(() => run(signal));
    // The queue sees the signal only while the call waits: it would give the place of a running call away at once,
    // with the call still at the store.
    const waiting = new AbortController();
    const onAbort = (): void => waiting.abort(unavailable('the caller gave up', signal?.reason));
    signal?.addEventListener('abort', onAbort, { once: true });
    const start = () => {
      signal?.removeEventListener('abort', onAbort);
      return run(signal);
    };
    return queue.add(start, { signal: waiting.signal });
  });
}
