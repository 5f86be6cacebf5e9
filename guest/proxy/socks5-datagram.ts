import { DATAGRAM_MAX_BYTES } from '../../shared/wire/datagram.ts';
import { type Endpoint, encodeAddress } from '../../shared/wire/endpoint.ts';
import { hostText } from './socks5.ts';

/** RFC 1928 section 7, with the longest name: `0 u16 | fragment u8 | type u8 | length u8 | name | port u16`. */
export const SOCKS_DATAGRAM_HEADER_MAX_BYTES = 262;

export interface SocksDatagram {
  /** As the client wrote it: a name, or the canonical text of an address. */
  readonly host: string;
  readonly port: number;
  /** A view of what was decoded. */
  readonly payload: Buffer;
}

/**
 * What a client asks to be sent. Undefined for anything that is no whole datagram: a fragment (the section lets a server
 * that does not put them together drop them), another address type, cut short, without a host, for port 0, or with more
 * payload than DATAGRAM_MAX_BYTES: over ::1 a client's own datagram may be longer than what IPv4 carries.
 */
export function decodeSocksDatagram(bytes: Buffer): SocksDatagram | undefined {
  if (bytes.length < 5 || bytes.readUInt16BE(0) !== 0 || bytes.readUInt8(2) !== 0) return undefined;
  const type = bytes.readUInt8(3);
  const start = type === 3 ? 5 : 4;
  const length = type === 1 ? 4 : type === 4 ? 16 : type === 3 ? bytes.readUInt8(4) : 0;
  const end = start + length;
  if (length === 0 || bytes.length < end + 2) return undefined;
  const port = bytes.readUInt16BE(end);
  const payload = bytes.subarray(end + 2);
  if (port === 0 || payload.length > DATAGRAM_MAX_BYTES) return undefined;
  return { host: hostText(type, bytes.subarray(start, end)), port, payload };
}

/** What came for a client; always with the address that it came from (section 7). */
export function encodeSocksDatagram({ address, port }: Endpoint, payload: Buffer): Buffer {
  const [family, ...octets] = encodeAddress(address);
  const header = [0, 0, 0, family === 4 ? 1 : 4, ...octets, port >> 8, port & 0xff];
  return Buffer.concat([Buffer.from(header), payload]);
}
