import type { Peer, TransportAddress } from './address.ts';
import { adoptListener, type PipeHandle } from './native/handle.ts';
import { streamOver } from './stream.ts';
import type { Listener, OnStream } from './transport.ts';

/**
 * Connections that wait to be accepted. The kernel caps it at net.core.somaxconn (4,096 by default); every one of
 * them is a peer that waits, and a live event loop is never 4,096 behind for long.
 */
export const LISTEN_BACKLOG = 4096;

/** A listening descriptor, not yet accepting. */
export interface BoundListener {
  readonly fd: number;
  /** Closes the descriptor and frees the address. */
  release(): Promise<void>;
}

/** Who an accepted handle leads to; undefined when the peer is gone already. */
export type PeerOf = (handle: PipeHandle) => Peer | undefined;

/** Accepts on a duplicate of `fd`, which stays the caller's. */
export function acceptOn(
  fd: number,
  address: TransportAddress,
  peerOf: PeerOf,
  onStream: OnStream,
): Listener {
  const handle = adoptListener(fd, LISTEN_BACKLOG, (client) => {
    const peer = peerOf(client);
    if (peer === undefined) return client.close();
    const stream = streamOver(client, peer);
    try {
      onStream(stream);
    } catch (error) {
      // The bug stays an uncaught exception, as in any event handler, but it leaves no stream behind.
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
