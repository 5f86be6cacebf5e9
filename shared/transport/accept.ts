import type { TransportAddress } from './address.ts';
import { adoptListener, type PipeHandle } from './native/handle.ts';
import type { Listener, OnStream, Stream } from './transport.ts';

/**
 * Connections that wait to be accepted. The kernel caps it at net.core.somaxconn (4,096 by default); every one of
 * them is a peer that waits, and a busy loop is never 4,096 behind for long.
 */
export const LISTEN_BACKLOG = 4096;

/**
 * Accepts on a listening descriptor, which stays the caller's: several threads may do so, each for itself, and the
 * kernel spreads the streams over them. A handler that throws loses its stream and is an uncaught exception of the
 * process, as with any event handler; the listener goes on.
 *
 * @param streamOf the stream of an accepted handle; undefined when its peer is gone already.
 */
export function acceptOn(
  fd: number,
  address: TransportAddress,
  streamOf: (handle: PipeHandle) => Stream | undefined,
  onStream: OnStream,
): Listener {
  const handle = adoptListener(fd, LISTEN_BACKLOG, (client) => {
    const stream = streamOf(client);
    if (stream === undefined) return client.close();
    try {
      onStream(stream);
    } catch (error) {
      stream.destroy();
      throw error;
    }
  });
  let closed: Promise<void> | undefined;
  const close = () => {
    closed ??= new Promise((resolve) => handle.close(resolve));
    return closed;
  };
  return { address, close };
}
