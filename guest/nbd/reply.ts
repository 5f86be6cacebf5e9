import {
  CHUNK,
  CHUNK_FLAG_DONE,
  CHUNK_HEADER_BYTES,
  EXTENT_BYTES,
  NBD_ERROR,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STATE_HOLE,
  STATE_ZERO,
  STRUCTURED_REPLY_MAGIC,
} from './constants.ts';
import type { BlockExtent } from './device.ts';
import { ALLOCATION_CONTEXT_ID } from './handshake.ts';
import { MAX_EXTENTS, MAX_STRING_BYTES } from './limits.ts';
import type { Refusal, Request } from './request.ts';

/** The reply without chunks: an errno or 0; after 0 to a READ the data follows. */
export function simpleReply(request: Request, errorNumber = 0): Buffer {
  const bytes = Buffer.allocUnsafe(SIMPLE_REPLY_BYTES);
  bytes.writeUInt32BE(SIMPLE_REPLY_MAGIC, 0);
  bytes.writeUInt32BE(errorNumber, 4);
  bytes.writeUInt32BE(request.cookieHigh, 8);
  bytes.writeUInt32BE(request.cookieLow, 12);
  return bytes;
}

/** The head of OFFSET_DATA; `length` bytes of data follow it. */
export function dataChunk(request: Request, offset: number, length: number, done: boolean): Buffer {
  const bytes = chunk(request, CHUNK.OFFSET_DATA, done, 8, length);
  writeOffset(bytes, offset, CHUNK_HEADER_BYTES);
  return bytes;
}

/** OFFSET_HOLE: the range reads as zeros. */
export function holeChunk(request: Request, offset: number, length: number, done: boolean): Buffer {
  const bytes = chunk(request, CHUNK.OFFSET_HOLE, done, 12);
  writeOffset(bytes, offset, CHUNK_HEADER_BYTES);
  bytes.writeUInt32BE(length, CHUNK_HEADER_BYTES + 8);
  return bytes;
}

/** NONE: the end of a reply with nothing in it. */
export function emptyChunk(request: Request): Buffer {
  return chunk(request, CHUNK.NONE, true, 0);
}

/** ERROR, with words for a person; the last chunk of its reply. */
export function errorChunk(request: Request, { error, text }: Refusal): Buffer {
  const message = Buffer.from(text).subarray(0, MAX_STRING_BYTES);
  const bytes = chunk(request, CHUNK.ERROR, true, 6 + message.length);
  bytes.writeUInt32BE(NBD_ERROR[error], CHUNK_HEADER_BYTES);
  bytes.writeUInt16BE(message.length, CHUNK_HEADER_BYTES + 4);
  message.copy(bytes, CHUNK_HEADER_BYTES + 6);
  return bytes;
}

/** BLOCK_STATUS of base:allocation: neighbours of one state are one extent; `one` keeps only the first. */
export function blockStatusChunk(request: Request, extents: readonly BlockExtent[], one: boolean): Buffer {
  const merged = mergeExtents(extents, request.length, one ? 1 : MAX_EXTENTS);
  const bytes = chunk(request, CHUNK.BLOCK_STATUS, true, 4 + EXTENT_BYTES * merged.length);
  let at = bytes.writeUInt32BE(ALLOCATION_CONTEXT_ID, CHUNK_HEADER_BYTES);
  for (const { length, hole, zero } of merged) {
    at = bytes.writeUInt32BE(length, at);
    at = bytes.writeUInt32BE((hole ? STATE_HOLE : 0) | (zero ? STATE_ZERO : 0), at);
  }
  return bytes;
}

/** At most `limit` extents that cover at most `length` bytes, none of them empty, no two neighbours alike. */
export function mergeExtents(extents: readonly BlockExtent[], length: number, limit: number): BlockExtent[] {
  const merged: BlockExtent[] = [];
  let left = length;
  for (const extent of extents) {
    const bytes = Math.min(extent.length, left);
    if (bytes === 0) continue;
    left -= bytes;
    const last = merged.at(-1);
    if (last !== undefined && last.hole === extent.hole && last.zero === extent.zero) {
      merged[merged.length - 1] = { ...last, length: last.length + bytes };
    } else if (merged.length === limit) break;
    else merged.push({ ...extent, length: bytes });
  }
  return merged;
}

/** A chunk of `ownBytes` of payload (room for it is made) before `dataBytes` that are sent after it. */
function chunk(request: Request, type: number, done: boolean, ownBytes: number, dataBytes = 0): Buffer {
  const bytes = Buffer.allocUnsafe(CHUNK_HEADER_BYTES + ownBytes);
  bytes.writeUInt32BE(STRUCTURED_REPLY_MAGIC, 0);
  bytes.writeUInt16BE(done ? CHUNK_FLAG_DONE : 0, 4);
  bytes.writeUInt16BE(type, 6);
  bytes.writeUInt32BE(request.cookieHigh, 8);
  bytes.writeUInt32BE(request.cookieLow, 12);
  bytes.writeUInt32BE(ownBytes + dataBytes, 16);
  return bytes;
}

function writeOffset(bytes: Buffer, offset: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(offset / 0x1_0000_0000), at);
  bytes.writeUInt32BE(offset % 0x1_0000_0000, at + 4);
}
