import { createServer, type Server, type Socket } from 'node:net';
import { PosternError } from '../../shared/errors.ts';
import { TCP_KEEP_ALIVE_MS } from '../egress/dial.ts';
import { formatTcpAddress, type TcpAddress } from './address.ts';

export interface TcpListener {
  /** Differs from the one that was asked for when that had port 0. */
  readonly address: TcpAddress;
  /** Stops accepting; connections that were accepted live on. */
  close(): Promise<void>;
}

/**
 * Listens on a TCP address; every socket is given paused. `purpose` names the entry of the configuration in errors.
 * @throws PosternError ERR_LISTEN_FAILED
 */
export function listenTcp(
  address: TcpAddress,
  purpose: string,
  onClient: (client: Socket) => void,
  onAcceptError: (error: Error) => void,
): Promise<TcpListener> {
  const server = createServer(
    {
      allowHalfOpen: true,
      pauseOnConnect: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: TCP_KEEP_ALIVE_MS,
    },
    onClient,
  );
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(bindError(address, purpose, error)));
    // `::` is for IPv6 alone, so that it and 0.0.0.0 do not exclude each other.
    server.listen({ host: address.host, port: address.port, ipv6Only: address.host.includes(':') }, () => {
      server.removeAllListeners('error').on('error', onAcceptError);
      resolve({ address: boundAddress(server, address), close: () => closeServer(server) });
    });
  });
}

export function boundAddress(server: Server, asked: TcpAddress): TcpAddress {
  const bound = server.address();
  return typeof bound === 'object' && bound !== null ? { host: asked.host, port: bound.port } : asked;
}

function closeServer(server: Server): Promise<void> {
  // close() calls back only when the last connection has ended; the port is free at once.
  server.close();
  return Promise.resolve();
}

const ADVICE: Record<string, string> = {
  EADDRINUSE: 'another process listens there (ss -ltnp shows which); stop it or choose another port',
  EACCES: 'ports below 1024 need CAP_NET_BIND_SERVICE, or a lower net.ipv4.ip_unprivileged_port_start',
  EADDRNOTAVAIL: 'this host does not have the address (ip addr shows those it has)',
  EAFNOSUPPORT: 'this host does not have the address family',
};

export function bindError(address: TcpAddress, purpose: string, cause: NodeJS.ErrnoException): PosternError {
  const advice = ADVICE[cause.code ?? ''] ?? cause.message;
  const text = `${purpose}: cannot listen on ${formatTcpAddress(address)}: ${cause.code ?? 'failed'}: ${advice}`;
  return new PosternError('ERR_LISTEN_FAILED', text, { cause });
}
