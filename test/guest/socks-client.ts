import type { Socket } from 'node:net';
import ipaddr from 'ipaddr.js';
import { readExactly } from '../../shared/wire/read.ts';
import { connectTcp } from './agent-fixture.ts';

const TIMEOUT_MS = 10_000;

/** The bytes of a greeting and a CONNECT request; `host` as an address where it is one. */
export function socksRequest(host: string, port: number, command = 1): Buffer {
  const address =
    ipaddr.IPv4.isValidFourPartDecimal(host) || ipaddr.IPv6.isValid(host) ? ipaddr.parse(host) : undefined;
  const type = address === undefined ? 3 : address.kind() === 'ipv4' ? 1 : 4;
  const body = address === undefined ? [host.length, ...Buffer.from(host, 'latin1')] : address.toByteArray();
  return Buffer.from([5, 1, 0, 5, command, 0, type, ...body, port >> 8, port & 255]);
}

/** Connects through the proxy; `reply` is the reply byte of RFC 1928. */
export async function socksConnect(
  proxyPort: number,
  host: string,
  port: number,
): Promise<{ socket: Socket; reply: number }> {
  const socket = await connectTcp(proxyPort);
  socket.on('error', () => {});
  socket.write(socksRequest(host, port));
  await readExactly(socket, 2, TIMEOUT_MS);
  const answer = await readExactly(socket, 10, TIMEOUT_MS);
  return { socket, reply: answer.readUInt8(1) };
}
