import { PosternError } from '../../shared/errors.ts';

/**
 * Generic netlink messages, as far as the nbd family needs them: a netlink header (16 bytes: u32 length, u16 type,
 * u16 flags, u32 sequence, u32 port), a generic header (u8 command, u8 version, u16 zero), then attributes (u16 length
 * with its four bytes of header, u16 type, payload, padding to four). All in the machine's byte order, which is
 * little-endian wherever Node runs on Linux today.
 */
const HEADER_BYTES = 16;
const GENERIC_HEADER_BYTES = 4;
const ATTRIBUTE_HEADER_BYTES = 4;

const NLM_F_REQUEST = 1;
const NLM_F_ACK = 4;
const NLMSG_ERROR = 2;
/** Says that the payload is attributes; kernels that do not know the bit mask it away. */
const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

export interface Attribute {
  readonly type: number;
  readonly payload: Buffer;
}

export interface GenericMessage {
  /** The generic netlink family's number. */
  readonly family: number;
  readonly command: number;
  readonly version: number;
  readonly attributes: readonly Buffer[];
}

/** What one datagram of the kernel said in answer to `sequence`. */
export interface NetlinkAnswer {
  readonly attributes: readonly Attribute[];
  /** Present once the kernel has finished: 0, or a positive errno. */
  readonly errorNumber?: number;
}

export function attribute(type: number, payload: Buffer): Buffer {
  const length = ATTRIBUTE_HEADER_BYTES + payload.length;
  const bytes = Buffer.alloc(align(length));
  bytes.writeUInt16LE(length, 0);
  bytes.writeUInt16LE(type, 2);
  payload.copy(bytes, ATTRIBUTE_HEADER_BYTES);
  return bytes;
}

export function u32Attribute(type: number, value: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32LE(value);
  return attribute(type, payload);
}

export function u64Attribute(type: number, value: number): Buffer {
  const payload = Buffer.alloc(8);
  payload.writeBigUInt64LE(BigInt(value));
  return attribute(type, payload);
}

export function nested(type: number, inner: readonly Buffer[]): Buffer {
  return attribute(type | NLA_F_NESTED, Buffer.concat(inner));
}

export function encodeGeneric(message: GenericMessage, sequence: number): Buffer {
  const head = Buffer.alloc(HEADER_BYTES + GENERIC_HEADER_BYTES);
  const body = Buffer.concat([head, ...message.attributes]);
  body.writeUInt32LE(body.length, 0);
  body.writeUInt16LE(message.family, 4);
  body.writeUInt16LE(NLM_F_REQUEST | NLM_F_ACK, 6);
  body.writeUInt32LE(sequence, 8);
  body.writeUInt8(message.command, HEADER_BYTES);
  body.writeUInt8(message.version, HEADER_BYTES + 1);
  return body;
}

/** @throws PosternError ERR_NBD_FAILED when it is not netlink */
export function decodeAnswer(datagram: Buffer, sequence: number): NetlinkAnswer {
  const attributes: Attribute[] = [];
  let errorNumber: number | undefined;
  for (let at = 0; at < datagram.length; ) {
    const length = datagram.length - at < HEADER_BYTES ? 0 : datagram.readUInt32LE(at);
    if (length < HEADER_BYTES || at + length > datagram.length) throw malformed();
    const message = datagram.subarray(at, at + length);
    at += align(length);
    if (message.readUInt32LE(8) !== sequence) continue;
    if (message.readUInt16LE(4) !== NLMSG_ERROR) {
      attributes.push(...decodeAttributes(message.subarray(HEADER_BYTES + GENERIC_HEADER_BYTES)));
    } else if (length < HEADER_BYTES + 4) throw malformed();
    else errorNumber = 0 - message.readInt32LE(HEADER_BYTES);
  }
  return errorNumber === undefined ? { attributes } : { attributes, errorNumber };
}

function decodeAttributes(bytes: Buffer): Attribute[] {
  const attributes: Attribute[] = [];
  for (let at = 0; at + ATTRIBUTE_HEADER_BYTES <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < ATTRIBUTE_HEADER_BYTES || at + length > bytes.length) throw malformed();
    const type = bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK;
    attributes.push({ type, payload: bytes.subarray(at + ATTRIBUTE_HEADER_BYTES, at + length) });
    at += align(length);
  }
  return attributes;
}

function align(length: number): number {
  return (length + 3) & ~3;
}

function malformed(): PosternError {
  return new PosternError('ERR_NBD_FAILED', 'the kernel answered with something that is not netlink');
}
