import { PosternError } from '../errors.ts';
import { decodeAddress, decodeEndpoint, type Endpoint, encodeAddress, encodeEndpoint } from './endpoint.ts';

/** Addresses that one OPEN may offer for Happy Eyeballs; more never helps a connection (RFC 8305 tries a few). */
export const OPEN_MAX_ADDRESSES = 16;

/** Guest to parent: connect to the first of these addresses that answers. */
export interface TcpOpen {
  readonly port: number;
  /** 1 to OPEN_MAX_ADDRESSES, in the order of preference. */
  readonly addresses: readonly string[];
}

/** Parent to guest: a client reached a forwarded port. */
export interface InboundOpen {
  /** The service port of the guest's ingress rules; never an address of the parent's choice. */
  readonly servicePort: number;
  readonly client: Endpoint;
  /** The address on the parent that the client connected to. */
  readonly local: Endpoint;
}

/** `port u16 | count u8 | 0 | count x (family u8 | address)`, see open.md. */
export function encodeTcpOpen(open: TcpOpen): Buffer {
  const count = open.addresses.length;
  if (count < 1 || count > OPEN_MAX_ADDRESSES) throw new RangeError(`${count} addresses`);
  const fixed = Buffer.alloc(4);
  fixed.writeUInt16BE(open.port, 0);
  fixed.writeUInt8(count, 2);
  return Buffer.concat([fixed, ...open.addresses.map(encodeAddress)]);
}

/** @throws PosternError ERR_WIRE_MALFORMED */
export function decodeTcpOpen(body: Buffer): TcpOpen {
  if (body.length < 4) throw malformed(`OPEN of ${body.length} bytes`);
  const port = body.readUInt16BE(0);
  const count = body.readUInt8(2);
  if (port === 0 || count < 1 || count > OPEN_MAX_ADDRESSES || body.readUInt8(3) !== 0) {
    throw malformed(`OPEN with port ${port} and ${count} addresses`);
  }
  const addresses: string[] = [];
  let offset = 4;
  for (let index = 0; index < count; index += 1) {
    const { address, end } = decodeAddress(body, offset);
    addresses.push(address);
    offset = end;
  }
  if (offset !== body.length) throw malformed('OPEN with bytes behind its end');
  return { port, addresses };
}

/** `servicePort u16 | client endpoint | local endpoint`, see open.md. */
export function encodeInboundOpen(open: InboundOpen): Buffer {
  const fixed = Buffer.alloc(2);
  fixed.writeUInt16BE(open.servicePort, 0);
  return Buffer.concat([fixed, encodeEndpoint(open.client), encodeEndpoint(open.local)]);
}

/** @throws PosternError ERR_WIRE_MALFORMED */
export function decodeInboundOpen(body: Buffer): InboundOpen {
  if (body.length < 2) throw malformed(`inbound OPEN of ${body.length} bytes`);
  const client = decodeEndpoint(body, 2);
  const local = decodeEndpoint(body, client.end);
  if (local.end !== body.length) throw malformed('inbound OPEN with bytes behind its end');
  return { servicePort: body.readUInt16BE(0), client: client.endpoint, local: local.endpoint };
}

function malformed(detail: string): PosternError {
  return new PosternError('ERR_WIRE_MALFORMED', detail);
}
