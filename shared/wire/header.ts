import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto';
import { PosternError } from '../errors.ts';

/** See header.md for the layout. */
export const MAGIC = 0x5053544e;
export const HEADER_VERSION = 1;
export const HEADER_BYTES = 32;
/** An OPEN with 16 IPv6 addresses takes 276 bytes; the rest is room for later versions. */
export const BODY_MAX_BYTES = 1024;
export const KEY_BYTES = 32;
const PROVEN_BYTES = 16;
const PROOF_BYTES = 16;
const PROOF_LABEL = Buffer.from('postern/1/stream\0');

export const STREAM_KINDS = { control: 1, tcp: 2, inbound: 3, udp: 4, object: 5 } as const;
export type StreamKind = keyof typeof STREAM_KINDS;
const KIND_NAMES = new Map<number, StreamKind>(
  Object.entries(STREAM_KINDS).map(([name, value]) => [value, name as StreamKind]),
);

export interface StreamHeader {
  readonly kind: StreamKind;
  /** Chosen by the opener, unique in a session while the flow lives; 0 on the control stream. */
  readonly flowId: number;
  readonly bodyLength: number;
}

/** Header and body in one buffer, proven with the session key (KEY_BYTES). */
export function encodeStreamHeader(kind: StreamKind, flowId: number, body: Buffer, key: Buffer): Buffer {
  if (body.length > BODY_MAX_BYTES) throw new RangeError(`body of ${body.length} bytes`);
  if (!Number.isSafeInteger(flowId) || flowId < 0) throw new RangeError(`flow id ${flowId}`);
  const bytes = Buffer.alloc(HEADER_BYTES + body.length);
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt8(HEADER_VERSION, 4);
  bytes.writeUInt8(STREAM_KINDS[kind], 5);
  bytes.writeUInt16BE(body.length, 6);
  bytes.writeBigUInt64BE(BigInt(flowId), 8);
  body.copy(bytes, HEADER_BYTES);
  computeProof(key, bytes, body).copy(bytes, PROVEN_BYTES);
  return bytes;
}

/**
 * Reads the fixed part (HEADER_BYTES). The proof is not checked here: see `proofHolds`.
 * @throws PosternError ERR_WIRE_MALFORMED, ERR_WIRE_VERSION, ERR_WIRE_TOO_LARGE
 */
export function decodeStreamHeader(bytes: Buffer): StreamHeader {
  if (bytes.length < HEADER_BYTES || bytes.readUInt32BE(0) !== MAGIC) {
    throw new PosternError('ERR_WIRE_MALFORMED', 'a stream does not begin with PSTN');
  }
  const version = bytes.readUInt8(4);
  if (version !== HEADER_VERSION) {
    throw new PosternError(
      'ERR_WIRE_VERSION',
      `stream header version ${version}, expected ${HEADER_VERSION}`,
    );
  }
  const kind = KIND_NAMES.get(bytes.readUInt8(5));
  if (kind === undefined) throw new PosternError('ERR_WIRE_MALFORMED', `stream kind ${bytes.readUInt8(5)}`);
  const bodyLength = bytes.readUInt16BE(6);
  if (bodyLength > BODY_MAX_BYTES) {
    throw new PosternError(
      'ERR_WIRE_TOO_LARGE',
      `stream body of ${bodyLength} bytes, over ${BODY_MAX_BYTES}`,
    );
  }
  const flowId = Number(bytes.readBigUInt64BE(8));
  if (!Number.isSafeInteger(flowId)) throw new PosternError('ERR_WIRE_MALFORMED', 'flow id over 2^53 - 1');
  return { kind, flowId, bodyLength };
}

/** Whether the holder of `key` made this header (the HEADER_BYTES as received) for this body. Constant time. */
export function proofHolds(key: Buffer, header: Buffer, body: Buffer): boolean {
  return timingSafeEqual(computeProof(key, header, body), header.subarray(PROVEN_BYTES, HEADER_BYTES));
}

function computeProof(key: Buffer, header: Buffer, body: Buffer): Buffer {
  if (key.length !== KEY_BYTES) throw new RangeError(`session key of ${key.length} bytes`);
  const mac = createHmac('sha256', keyObjectOf(key))
    .update(PROOF_LABEL)
    .update(header.subarray(0, PROVEN_BYTES))
    .update(body);
  return mac.digest().subarray(0, PROOF_BYTES);
}

/** Importing the key costs four times as much as the proof itself, and a session makes thousands with one key. */
const keyObjects = new WeakMap<Buffer, KeyObject>();

function keyObjectOf(key: Buffer): KeyObject {
  let keyObject = keyObjects.get(key);
  if (keyObject === undefined) {
    keyObject = createSecretKey(key);
    keyObjects.set(key, keyObject);
  }
  return keyObject;
}
