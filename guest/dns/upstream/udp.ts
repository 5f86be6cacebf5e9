import { createSocket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import { PosternError } from '../../../shared/errors.ts';
import { addressText, type SocketAddress } from './address.ts';
import { answersQuery } from './query.ts';
import type { Upstream } from './upstream.ts';

/** Datagrams that are not the answer, after which the exchange is given up: somebody is guessing. */
const STRAYS_MAX = 64;

/**
 * Plain UDP from this machine. Every exchange has its own socket: the kernel picks the source port at random and, the
 * socket being connected, drops what comes from any other address.
 */
export function udpUpstream(server: SocketAddress): Upstream {
  const name = `${addressText(server)} over UDP`;
  return {
    name,
    exchange(query, { signal }) {
      return new Promise<Buffer>((resolve, reject) => {
        const socket = createSocket(isIPv6(server.address) ? 'udp6' : 'udp4');
        let strays = 0;
        const finish = (settle: () => void): void => {
          signal.removeEventListener('abort', onAbort);
          socket.removeAllListeners();
          socket.on('error', () => {});
          socket.close();
          settle();
        };
        const fail = (reason: string, cause?: unknown): void =>
          finish(() => reject(new PosternError('ERR_DNS_UPSTREAM', `${name}: ${reason}`, { cause })));
        const onAbort = (): void =>
          finish(() => reject(new PosternError('ERR_DNS_TIMEOUT', `${name} did not answer in time`)));
        if (signal.aborted) {
          onAbort();
          return;
        }
        signal.addEventListener('abort', onAbort, { once: true });
        socket.on('error', (error) => fail(error.message, error));
        socket.on('message', (datagram) => {
          if (answersQuery(datagram, query)) finish(() => resolve(datagram));
          else if (++strays > STRAYS_MAX) fail('too many datagrams that are no answer');
        });
        socket.connect(server.port, server.address, () => socket.send(query));
      });
    },
  };
}
