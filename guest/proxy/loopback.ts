import type { Server } from 'node:net';
import ipaddr from 'ipaddr.js';
import { PosternError } from '../../shared/errors.ts';

/** Where a proxy listens: an IP address and a port. */
export interface LoopbackAddress {
  readonly host: string;
  readonly port: number;
}

/** `127.0.0.1:1080` or `[::1]:1080`; undefined for anything that is no loopback address with a port. */
export function parseLoopback(text: string): LoopbackAddress | undefined {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([0-9.]+)):(0|[1-9]\d{0,4})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || !(ipaddr.IPv4.isValidFourPartDecimal(host) || ipaddr.IPv6.isValid(host)))
    return undefined;
  const port = Number(match?.[3]);
  return port <= 65_535 && ipaddr.parse(host).range() === 'loopback' ? { host, port } : undefined;
}

export function formatLoopback({ host, port }: LoopbackAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Binds a server; resolves with the address it got (a port of 0 is replaced).
 * @throws PosternError ERR_LISTEN_FAILED
 */
export function listenLoopback(server: Server, { host, port }: LoopbackAddress): Promise<LoopbackAddress> {
  return new Promise((resolve, reject) => {
    const onError = (cause: NodeJS.ErrnoException): void => {
      const where = formatLoopback({ host, port });
      reject(new PosternError('ERR_LISTEN_FAILED', `cannot listen at ${where}: ${cause.message}`, { cause }));
    };
    server.once('error', onError);
    server.listen({ host, port }, () => {
      server.off('error', onError);
      const bound = server.address();
      resolve({ host, port: typeof bound === 'object' && bound !== null ? bound.port : port });
    });
  });
}
