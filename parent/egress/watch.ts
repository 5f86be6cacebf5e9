import type { Stream } from '../../shared/transport/transport.ts';

/** How soon a dial notices that the guest has given it up. */
const WATCH_MS = 250;
const NOTHING = Buffer.alloc(0);

/**
 * Calls `onGone` when the peer has closed the stream, which nobody reads meanwhile. A peer that ended only its own
 * direction (it has sent its request and waits) looks the same to a reader, but not to a writer: after a close, even
 * a write of nothing fails. Returns the function that ends the watch.
 */
export function watchGone(stream: Stream, onGone: () => void): () => void {
  const timer = setInterval(() => {
    if (!stream.destroyed) stream.write(NOTHING);
  }, WATCH_MS);
  stream.once('close', onGone);
  return () => {
    clearInterval(timer);
    stream.off('close', onGone);
  };
}
