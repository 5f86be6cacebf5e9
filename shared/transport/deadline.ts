import { PosternError } from '../errors.ts';
import { formatTransportAddress, type TransportAddress } from './address.ts';
import type { ConnectOptions } from './transport.ts';

/**
 * A live peer on the same machine answers in microseconds, and the kernel gives a vsock connection up after 2 s.
 * The rest is room for a peer whose event loop is busy; nobody waits longer for a guest that is gone.
 */
export const CONNECT_TIMEOUT_MS = 5000;

/** Runs `attempt` under one signal that stands for the caller's own signal and the deadline, with coded reasons. */
export async function withinDeadline<T>(
  address: TransportAddress,
  options: ConnectOptions,
  attempt: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const timeoutMs = options.timeoutMs ?? CONNECT_TIMEOUT_MS;
  const where = formatTransportAddress(address);
  const controller = new AbortController();
  const onAbort = () => {
    const cause: unknown = options.signal?.reason;
    controller.abort(new PosternError('ERR_TRANSPORT_ABORTED', `${where}: the caller gave up`, { cause }));
  };
  const timer = setTimeout(() => {
    controller.abort(new PosternError('ERR_TRANSPORT_TIMEOUT', `${where}: no answer in ${timeoutMs} ms`));
  }, timeoutMs);
  try {
    if (options.signal?.aborted) onAbort();
    options.signal?.addEventListener('abort', onAbort, { once: true });
    controller.signal.throwIfAborted();
    return await attempt(controller.signal);
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', onAbort);
  }
}
