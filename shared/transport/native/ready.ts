import koffi from 'koffi';

/** Held here because a poll handle that nothing refers to would be collected with its descriptor still waiting. */
const waiting = new Set<object>();

/**
 * Resolves when `fd` is writable or failed: for a socket on its way to a peer, when the connection is decided. The
 * wait is the event loop's own, so that a thousand connections that never answer occupy no thread of the pool.
 * The descriptor stays the caller's, who closes it only after this has settled.
 * @throws the signal's reason
 */
export function whenWritable(fd: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const settle = (done: () => void) => {
      if (!waiting.delete(poll)) return;
      signal.removeEventListener('abort', onAbort);
      poll.close();
      done();
    };
    const onAbort = () => settle(() => reject(signal.reason));
    const poll = koffi.node.poll(fd, { writable: true }, () => settle(resolve));
    waiting.add(poll);
    signal.addEventListener('abort', onAbort, { once: true });
  });
}
