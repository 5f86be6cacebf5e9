import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import type { SocketAddress } from './address.ts';

/**
 * Opens a byte stream to a resolver; whoever asked for it ends it. Rejects when the signal aborts. In the guest it is a
 * flow through the parent, elsewhere a socket of this machine.
 */
export type ConnectStream = (signal: AbortSignal) => Promise<Duplex>;

/** TCP from this machine. */
export function directTcp(server: SocketAddress): ConnectStream {
  return (signal) =>
    new Promise((resolve, reject) => {
      const socket = connect({ host: server.address, port: server.port, noDelay: true });
      const onAbort = (): void => {
        socket.destroy(new Error('the connection was not made in time'));
      };
      signal.addEventListener('abort', onAbort, { once: true });
      const settle = (finish: () => void): void => {
        signal.removeEventListener('abort', onAbort);
        socket.removeAllListeners('error');
        finish();
      };
      socket.once('error', (error) => settle(() => reject(error)));
      socket.once('connect', () => settle(() => resolve(socket)));
      if (signal.aborted) onAbort();
    });
}
