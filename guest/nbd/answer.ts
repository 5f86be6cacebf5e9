import { COMMAND, COMMAND_FLAG, NBD_ERROR } from './constants.ts';
import type { BlockDevice, BlockExtent } from './device.ts';
import type { Agreement } from './export.ts';
import { HOLE_MIN_BYTES, HOLE_SCAN_MIN_BYTES } from './limits.ts';
import {
  blockStatusChunk,
  dataChunk,
  emptyChunk,
  errorChunk,
  holeChunk,
  mergeExtents,
  simpleReply,
} from './reply.ts';
import type { Refusal, Request } from './request.ts';

/** Buffers of one reply, in order, sent as they are. */
export type Reply = readonly Buffer[];

/**
 * Carries out a request that `refusalOf` let through. `payload` is the data of a WRITE.
 * Rejects with what the device rejected with.
 */
export function answer(agreement: Agreement, request: Request, payload: Buffer): Promise<Reply> {
  const { device } = agreement.export;
  if (request.type === COMMAND.READ) return read(agreement, request);
  if (request.type === COMMAND.BLOCK_STATUS) return blockStatus(device, request);
  if (request.type === COMMAND.WRITE_ZEROES && isSlowZero(request)) {
    const text = 'zeros that keep their space are written like data';
    return Promise.resolve(refuse(agreement, request, { error: 'ENOTSUP', text }));
  }
  return change(device, request, payload).then(() => [simpleReply(request)]);
}

/** The reply to a request that is not carried out, with its words where the client can take them. */
export function refuse(agreement: Agreement, request: Request, refusal: Refusal): Reply {
  if (agreement.structured) return [errorChunk(request, refusal)];
  return [simpleReply(request, NBD_ERROR[refusal.error])];
}

/** FAST_ZERO asks for a refusal rather than work as slow as a WRITE, and a device allocates by writing. */
function isSlowZero({ flags }: Request): boolean {
  const slow = COMMAND_FLAG.FAST_ZERO | COMMAND_FLAG.NO_HOLE;
  return (flags & slow) === slow;
}

function change(device: BlockDevice, request: Request, payload: Buffer): Promise<void> {
  const { type, offset, length } = request;
  const fua = (request.flags & COMMAND_FLAG.FUA) !== 0;
  if (type === COMMAND.FLUSH) return device.flush();
  if (length === 0) return Promise.resolve();
  if (type === COMMAND.WRITE) return device.write(offset, payload, { fua });
  if (type === COMMAND.TRIM) return device.trim(offset, length, { fua });
  if (type === COMMAND.CACHE) return device.cache(offset, length);
  return device.writeZeroes(offset, length, { fua, noHole: (request.flags & COMMAND_FLAG.NO_HOLE) !== 0 });
}

function read(agreement: Agreement, request: Request): Promise<Reply> {
  const { device } = agreement.export;
  const { offset, length } = request;
  if (length === 0)
    return Promise.resolve([agreement.structured ? emptyChunk(request) : simpleReply(request)]);
  if (!agreement.structured) {
    return device.read(offset, length).then((data) => [simpleReply(request), exactly(data, length)]);
  }
  const oneChunk = (request.flags & COMMAND_FLAG.DF) !== 0;
  if (!oneChunk && length >= HOLE_SCAN_MIN_BYTES) return readSparse(device, request);
  return device
    .read(offset, length)
    .then((data) => [dataChunk(request, offset, length, true), exactly(data, length)]);
}

/**
 * A read whose holes are told instead of sent. A write that lands between the look and the read was not answered
 * when the read came, so either of its states is right.
 */
async function readSparse(device: BlockDevice, request: Request): Promise<Reply> {
  const extents = await device.blockStatus(request.offset, request.length);
  const pieces = readPieces(extents, request.length);
  let offset = request.offset;
  const placed = pieces.map((piece) => {
    offset += piece.length;
    return { ...piece, offset: offset - piece.length };
  });
  const datas = await Promise.all(
    placed.map((piece) => (piece.zero ? undefined : device.read(piece.offset, piece.length))),
  );
  return placed.flatMap((piece, index) => {
    const done = index === placed.length - 1;
    const data = datas[index];
    if (data === undefined) return [holeChunk(request, piece.offset, piece.length, done)];
    return [dataChunk(request, piece.offset, piece.length, done), exactly(data, piece.length)];
  });
}

/** The pieces of a read: long runs of zeros, and everything between them. They cover `length` exactly. */
export function readPieces(
  extents: readonly BlockExtent[],
  length: number,
): readonly { readonly length: number; readonly zero: boolean }[] {
  const merged = mergeExtents(extents, length, Number.POSITIVE_INFINITY);
  const covered = merged.reduce((sum, extent) => sum + extent.length, 0);
  const pieces: { length: number; zero: boolean }[] = [];
  const add = (bytes: number, zero: boolean): void => {
    const last = pieces.at(-1);
    if (last !== undefined && last.zero === zero) last.length += bytes;
    else pieces.push({ length: bytes, zero });
  };
  for (const extent of merged) add(extent.length, extent.zero && extent.length >= HOLE_MIN_BYTES);
  // The device may say less than it was asked: the rest is read.
  if (covered < length) add(length - covered, false);
  return pieces;
}

async function blockStatus(device: BlockDevice, request: Request): Promise<Reply> {
  const extents = await device.blockStatus(request.offset, request.length);
  return [blockStatusChunk(request, extents, (request.flags & COMMAND_FLAG.REQ_ONE) !== 0)];
}

/** A short read would shift every later reply of the connection: it can only be a mistake in the device. */
function exactly(data: Buffer, length: number): Buffer {
  if (data.length !== length) throw new Error(`the device read ${data.length} bytes instead of ${length}`);
  return data;
}
