import ipaddr from 'ipaddr.js';
import { PosternError } from '../errors.ts';

/** Address and port as text and number; the text is the canonical form that ipaddr.js prints. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/** `family u8 (4|6) | address (4|16)`. @throws RangeError for text that is no IP address (our bug). */
export function encodeAddress(address: string): Buffer {
  if (!ipaddr.isValid(address)) throw new RangeError(`address ${address}`);
  const parsed = ipaddr.parse(address);
  return Buffer.from([parsed.kind() === 'ipv4' ? 4 : 6, ...parsed.toByteArray()]);
}

/**
 * Reads one address at `offset`; `end` is the offset behind it.
 * @throws PosternError ERR_WIRE_MALFORMED
 */
export function decodeAddress(bytes: Buffer, offset: number): { address: string; end: number } {
  const family = bytes[offset];
  const length = family === 4 ? 4 : family === 6 ? 16 : 0;
  const end = offset + 1 + length;
  if (length === 0 || end > bytes.length) {
    throw new PosternError('ERR_WIRE_MALFORMED', `address of family ${family ?? 'none'} at ${offset}`);
  }
  return { address: ipaddr.fromByteArray([...bytes.subarray(offset + 1, end)]).toString(), end };
}

/** `family u8 | address | port u16`. */
export function encodeEndpoint(endpoint: Endpoint): Buffer {
  const port = Buffer.alloc(2);
  port.writeUInt16BE(endpoint.port);
  return Buffer.concat([encodeAddress(endpoint.address), port]);
}

/** @throws PosternError ERR_WIRE_MALFORMED */
export function decodeEndpoint(bytes: Buffer, offset: number): { endpoint: Endpoint; end: number } {
  const { address, end } = decodeAddress(bytes, offset);
  if (end + 2 > bytes.length) throw new PosternError('ERR_WIRE_MALFORMED', `endpoint cut short at ${offset}`);
  return { endpoint: { address, port: bytes.readUInt16BE(end) }, end: end + 2 };
}
