import { PosternError } from '../errors.ts';
import { KEY_MAX_BYTES } from '../objects/key.ts';
import { type ByteRange, LIST_MAX_KEYS } from '../objects/store.ts';

/** The protocol inside a stream of kind `object`, after the reply: see object.md. */
export const OBJECT_MAGIC = 0x5053544f;
export const OBJECT_VERSION_MIN = 1;
export const OBJECT_VERSION_MAX = 1;
export const OBJECT_HEADER_BYTES = 12;
/** Most that one DATA frame carries, and so the longest that a small frame waits behind a large object. */
export const DATA_MAX_BYTES = 64 * 1024;
/** A PUT up to this size sends its body at once; a larger one waits for GRANT. */
export const INLINE_MAX_BYTES = 64 * 1024;
export const DETAIL_MAX_BYTES = 200;
const REQUEST_FIXED_BYTES = 12;
const REPLY_FIXED_BYTES = 8;
const HAS_RANGE = 1;
const TRUNCATED = 1;

export type ObjectRequest =
  | { readonly op: 'put'; readonly key: string; readonly sizeBytes: number }
  | { readonly op: 'get'; readonly key: string; readonly range?: ByteRange }
  | { readonly op: 'head'; readonly key: string }
  | { readonly op: 'delete'; readonly key: string }
  | { readonly op: 'list'; readonly prefix: string; readonly after: string; readonly limit: number };

/** The failures of the object store's interface, and a request that its own side cancelled. */
export type FailureStatus = 'unavailable' | 'ambiguous' | 'denied' | 'limit' | 'corrupt' | 'cancelled';

export type ObjectReply =
  | { readonly status: 'created' | 'exists' | 'absent' | 'deleted' }
  /** `sizeBytes` of DATA follow. */
  | { readonly status: 'found'; readonly sizeBytes: number }
  /** Answers a HEAD; nothing follows. */
  | { readonly status: 'size'; readonly sizeBytes: number }
  /** `sizeBytes` of DATA follow, `count` entries (see object-page.ts). */
  | {
      readonly status: 'page';
      readonly sizeBytes: number;
      readonly count: number;
      readonly truncated: boolean;
    }
  | { readonly status: FailureStatus; readonly detail: string };

/** Why a side ends the stream. */
export type ByeReason = 'version' | 'malformed' | 'limit' | 'draining';

export type ObjectFrame =
  | { readonly type: 'hello'; readonly minVersion: number; readonly maxVersion: number }
  | { readonly type: 'welcome'; readonly version: number; readonly maxRequests: number }
  | { readonly type: 'request'; readonly requestId: number; readonly request: ObjectRequest }
  | { readonly type: 'grant'; readonly requestId: number }
  | { readonly type: 'cancel'; readonly requestId: number }
  | { readonly type: 'reply'; readonly requestId: number; readonly reply: ObjectReply }
  | { readonly type: 'bye'; readonly reason: ByeReason; readonly detail: string };

export const OBJECT_FRAME_TYPES = {
  hello: 1,
  welcome: 2,
  request: 3,
  grant: 4,
  reply: 5,
  data: 6,
  cancel: 7,
  bye: 8,
} as const;
export type ObjectFrameType = keyof typeof OBJECT_FRAME_TYPES;

const OPS = { put: 1, get: 2, head: 3, list: 4, delete: 5 } as const;
const STATUSES = {
  created: 0,
  exists: 1,
  found: 2,
  size: 3,
  page: 4,
  absent: 5,
  deleted: 6,
  unavailable: 16,
  ambiguous: 17,
  denied: 18,
  limit: 19,
  corrupt: 20,
  cancelled: 21,
} as const;
const FIRST_FAILURE = STATUSES.unavailable;
const BYE_REASONS = { version: 1, malformed: 2, limit: 3, draining: 4 } as const;

/** Payload lengths of each frame type, least and most; a decoder holds a length against them before it keeps a byte. */
export const OBJECT_PAYLOAD_BYTES: Readonly<Record<ObjectFrameType, readonly [least: number, most: number]>> =
  {
    hello: [8, 8],
    welcome: [8, 8],
    request: [REQUEST_FIXED_BYTES, REQUEST_FIXED_BYTES + 2 * KEY_MAX_BYTES],
    grant: [0, 0],
    reply: [REPLY_FIXED_BYTES, REPLY_FIXED_BYTES + DETAIL_MAX_BYTES],
    data: [1, DATA_MAX_BYTES],
    cancel: [0, 0],
    bye: [4, 4 + DETAIL_MAX_BYTES],
  };

/** The header of a DATA frame whose `length` bytes the caller writes behind it. */
export function encodeDataHeader(requestId: number, length: number): Buffer {
  return encodeHeader('data', requestId, length);
}

export function encodeObjectFrame(frame: ObjectFrame): Buffer {
  const payload = encodePayload(frame);
  const requestId = 'requestId' in frame ? frame.requestId : 0;
  return Buffer.concat([encodeHeader(frame.type, requestId, payload.length), payload]);
}

function encodeHeader(type: ObjectFrameType, requestId: number, length: number): Buffer {
  const header = Buffer.alloc(OBJECT_HEADER_BYTES);
  header.writeUInt8(OBJECT_FRAME_TYPES[type], 0);
  header.writeUInt32BE(requestId, 4);
  header.writeUInt32BE(length, 8);
  return header;
}

function encodePayload(frame: ObjectFrame): Buffer {
  switch (frame.type) {
    case 'hello':
      return fixed(8, OBJECT_MAGIC, (bytes) => {
        bytes.writeUInt8(frame.minVersion, 4);
        bytes.writeUInt8(frame.maxVersion, 5);
      });
    case 'welcome':
      return fixed(8, OBJECT_MAGIC, (bytes) => {
        bytes.writeUInt8(frame.version, 4);
        bytes.writeUInt16BE(frame.maxRequests, 6);
      });
    case 'request':
      return encodeRequest(frame.request);
    case 'reply':
      return encodeReply(frame.reply);
    case 'bye':
      return Buffer.concat([Buffer.from([BYE_REASONS[frame.reason], 0, 0, 0]), encodeDetail(frame.detail)]);
    default:
      return Buffer.alloc(0);
  }
}

function fixed(length: number, magic: number, fill: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.alloc(length);
  bytes.writeUInt32BE(magic, 0);
  fill(bytes);
  return bytes;
}

function encodeRequest(request: ObjectRequest): Buffer {
  const name = Buffer.from(request.op === 'list' ? request.prefix : request.key, 'latin1');
  const after = Buffer.from(request.op === 'list' ? request.after : '', 'latin1');
  const bytes = Buffer.alloc(REQUEST_FIXED_BYTES);
  bytes.writeUInt8(OPS[request.op], 0);
  bytes.writeUInt16BE(name.length, 2);
  if (request.op === 'put') bytes.writeUInt32BE(request.sizeBytes, 8);
  if (request.op === 'list') bytes.writeUInt32BE(request.limit, 8);
  if (request.op === 'get' && request.range !== undefined) {
    bytes.writeUInt8(HAS_RANGE, 1);
    bytes.writeUInt32BE(request.range.offset, 4);
    bytes.writeUInt32BE(request.range.length, 8);
  }
  return Buffer.concat([bytes, name, after]);
}

function encodeReply(reply: ObjectReply): Buffer {
  const bytes = Buffer.alloc(REPLY_FIXED_BYTES);
  bytes.writeUInt8(STATUSES[reply.status], 0);
  if ('sizeBytes' in reply) bytes.writeUInt32BE(reply.sizeBytes, 4);
  if (reply.status === 'page') {
    bytes.writeUInt8(reply.truncated ? TRUNCATED : 0, 1);
    bytes.writeUInt16BE(reply.count, 2);
  }
  return 'detail' in reply ? Buffer.concat([bytes, encodeDetail(reply.detail)]) : bytes;
}

function encodeDetail(detail: string): Buffer {
  return Buffer.from(detail.replace(/[^\x20-\x7e]/g, '?').slice(0, DETAIL_MAX_BYTES), 'latin1');
}

/**
 * The payload of a frame whose length its type allows; `data` frames are not decoded but passed through.
 * @throws PosternError ERR_WIRE_MALFORMED
 */
export function decodeObjectPayload(
  type: Exclude<ObjectFrameType, 'data'>,
  requestId: number,
  payload: Buffer,
): ObjectFrame {
  switch (type) {
    case 'hello':
      expect(payload.readUInt32BE(0) === OBJECT_MAGIC && payload.readUInt16BE(6) === 0, 'HELLO');
      return { type, minVersion: payload.readUInt8(4), maxVersion: payload.readUInt8(5) };
    case 'welcome':
      expect(payload.readUInt32BE(0) === OBJECT_MAGIC && payload.readUInt8(5) === 0, 'WELCOME');
      expect(payload.readUInt16BE(6) > 0, 'WELCOME that allows no request');
      return { type, version: payload.readUInt8(4), maxRequests: payload.readUInt16BE(6) };
    case 'request':
      return { type, requestId, request: decodeRequest(payload) };
    case 'reply':
      return { type, requestId, reply: decodeReply(payload) };
    case 'bye':
      expect(payload.readUIntBE(1, 3) === 0, 'BYE');
      return { type, reason: nameOf(BYE_REASONS, payload.readUInt8(0)), detail: decodeText(payload, 4) };
    default:
      return { type, requestId };
  }
}

function decodeRequest(payload: Buffer): ObjectRequest {
  const op = nameOf(OPS, payload.readUInt8(0));
  const flags = payload.readUInt8(1);
  const nameEnd = REQUEST_FIXED_BYTES + payload.readUInt16BE(2);
  const [offset, length] = [payload.readUInt32BE(4), payload.readUInt32BE(8)];
  expect(
    nameEnd <= payload.length && nameEnd <= REQUEST_FIXED_BYTES + KEY_MAX_BYTES,
    'a name past its frame',
  );
  const key = decodeText(payload.subarray(0, nameEnd), REQUEST_FIXED_BYTES);
  const after = decodeText(payload, nameEnd);
  expect(op === 'list' || after === '', 'bytes behind a key');
  expect(op === 'get' ? flags === 0 || flags === HAS_RANGE : flags === 0, `flags ${flags}`);
  expect(flags === HAS_RANGE || offset === 0, 'an offset without a range');
  switch (op) {
    case 'put':
      return { op, key, sizeBytes: length };
    case 'list':
      expect(
        length >= 1 && length <= LIST_MAX_KEYS && after.length <= KEY_MAX_BYTES,
        `a page of ${length} keys`,
      );
      return { op, prefix: key, after, limit: length };
    case 'get':
      if (flags === HAS_RANGE) return { op, key, range: { offset, length } };
      break;
    default:
  }
  expect(length === 0, 'a length without a range');
  return { op, key };
}

function decodeReply(payload: Buffer): ObjectReply {
  const value = payload.readUInt8(0);
  const status = nameOf(STATUSES, value);
  const [flags, count, sizeBytes] = [payload.readUInt8(1), payload.readUInt16BE(2), payload.readUInt32BE(4)];
  expect(value >= FIRST_FAILURE || payload.length === REPLY_FIXED_BYTES, 'bytes behind a reply');
  if (status === 'page') {
    expect(flags <= TRUNCATED && count <= LIST_MAX_KEYS, 'a page');
    return { status, sizeBytes, count, truncated: flags === TRUNCATED };
  }
  expect(flags === 0 && count === 0, `a reply ${status} with a count`);
  if (status === 'found' || status === 'size') return { status, sizeBytes };
  expect(sizeBytes === 0, `a reply ${status} with a size`);
  if (status === 'created' || status === 'exists' || status === 'absent' || status === 'deleted')
    return { status };
  return { status, detail: decodeText(payload, REPLY_FIXED_BYTES) };
}

function decodeText(payload: Buffer, start: number): string {
  const text = payload.toString('latin1', start);
  expect(/^[\x20-\x7e]*$/.test(text), 'a text that is not printable ASCII');
  return text;
}

function nameOf<T extends string>(values: Readonly<Record<T, number>>, value: number): T {
  for (const name in values) if (values[name] === value) return name;
  throw malformed(`value ${value}, none of ${Object.keys(values).join(', ')}`);
}

function expect(holds: boolean, what: string): void {
  if (!holds) throw malformed(what);
}

function malformed(what: string): PosternError {
  return new PosternError('ERR_WIRE_MALFORMED', `object stream: ${what}`);
}
