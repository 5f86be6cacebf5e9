import ipaddr from 'ipaddr.js';
import { PosternError } from '../../shared/errors.ts';

/** A TCP address to listen on. */
export interface TcpAddress {
  /** Canonical text of the IP address. */
  readonly host: string;
  readonly port: number;
}

/**
 * `192.0.2.1:443` or `[2001:db8::1]:443`; port 0 asks the kernel for a free one.
 * @throws PosternError ERR_ADDRESS_INVALID
 */
export function parseTcpAddress(text: string): TcpAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|(\d+\.\d+\.\d+\.\d+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3]);
  const family = match?.[1] === undefined ? ipaddr.IPv4 : ipaddr.IPv6;
  const valid = match?.[1] === undefined ? ipaddr.IPv4.isValidFourPartDecimal(host) : family.isValid(host);
  if (match === null || !valid || port > 65535) {
    throw new PosternError('ERR_ADDRESS_INVALID', `${JSON.stringify(text)} is not an address and a port`);
  }
  return { host: family.parse(host).toString(), port };
}

export function formatTcpAddress(address: TcpAddress): string {
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}
