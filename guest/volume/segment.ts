import { PosternError } from '../../shared/errors.ts';
import { FieldReader, FieldWriter, ownCopy } from './fields.ts';
import { KEY_BYTES, SEGMENT_ID_BYTES } from './keys.ts';
import {
  BLOCK_BYTES,
  FRAME_MAX_BLOCKS,
  SEGMENT_MAX_BLOCKS,
  SEGMENT_MAX_FRAMES,
  TAG_BYTES,
} from './limits.ts';
import { commitName, segmentName } from './names.ts';

/** Where a segment's bytes are, and of what sort: see format.md, "Segment entry". */
export const SEGMENT_KINDS = { data: 1, inline: 2, index: 3, table: 4, manifest: 5 } as const;
export type SegmentKind = keyof typeof SEGMENT_KINDS;
const KIND_NAMES = new Map<number, SegmentKind>(
  Object.entries(SEGMENT_KINDS).map(([name, value]) => [value, name as SegmentKind]),
);
/** A page of the segment table holds 32. */
export const SEGMENT_ENTRY_BYTES = 128;
export const DIRECTORY_ENTRY_BYTES = 8;

/** A run of consecutive blocks, sealed as one. */
export interface FrameSpan {
  readonly lba: number;
  /** 1 to FRAME_MAX_BLOCKS. */
  readonly blocks: number;
}

/** What the guest remembers of a segment: enough to read and to verify any frame of it with one range GET. */
export interface SegmentEntry {
  readonly kind: SegmentKind;
  readonly generation: number;
  readonly id: Buffer;
  readonly siv: Buffer;
  /** `frameCounts[n - 1]`: frames of n blocks. Larger frames come first, so these counts are the whole layout. */
  readonly frameCounts: readonly number[];
  /** Blocks that the index still refers to. */
  readonly liveBlocks: number;
  /** Of an inline segment: the commit object that holds it, and where in that its frames begin. Else 0. */
  readonly epoch: number;
  readonly seq: number;
  readonly baseOffset: number;
}

/** Orders spans as a segment holds them: by size, the largest first, then by lba. */
export function orderSpans(spans: readonly FrameSpan[]): FrameSpan[] {
  return [...spans].sort((a, b) => b.blocks - a.blocks || a.lba - b.lba);
}

export function countFrames(spans: readonly FrameSpan[]): number[] {
  const counts = new Array<number>(FRAME_MAX_BLOCKS).fill(0);
  for (const span of spans) counts[span.blocks - 1] = (counts[span.blocks - 1] ?? 0) + 1;
  return counts;
}

export function frameCount(entry: SegmentEntry): number {
  return entry.frameCounts.reduce((sum, count) => sum + count, 0);
}

export function blockCount(entry: SegmentEntry): number {
  return entry.frameCounts.reduce((sum, count, index) => sum + count * (index + 1), 0);
}

/** Byte range of a frame in its object, tag included; the frame after the last is the directory. */
export function frameRange(
  entry: SegmentEntry,
  frame: number,
): { readonly offset: number; readonly length: number; readonly blocks: number } {
  let offset = entry.baseOffset;
  let left = frame;
  for (let blocks = FRAME_MAX_BLOCKS; blocks >= 1; blocks -= 1) {
    const count = entry.frameCounts[blocks - 1] ?? 0;
    const length = blocks * BLOCK_BYTES + TAG_BYTES;
    if (left < count) return { offset: offset + left * length, length, blocks };
    offset += count * length;
    left -= count;
  }
  if (left === 0) {
    return { offset, length: frameCount(entry) * DIRECTORY_ENTRY_BYTES + TAG_BYTES, blocks: 0 };
  }
  throw new PosternError('ERR_VOLUME_CORRUPT', `segment ${entry.id.toString('hex')} has no frame ${frame}`);
}

/** Bytes that the segment's frames and directory take in its object. */
export function segmentBytes(entry: SegmentEntry): number {
  const frames = frameCount(entry);
  if (frames === 0) return 0;
  return blockCount(entry) * BLOCK_BYTES + frames * (TAG_BYTES + DIRECTORY_ENTRY_BYTES) + TAG_BYTES;
}

/** The object's name below the volume's prefix. */
export function segmentObjectName(entry: SegmentEntry): string {
  return entry.kind === 'inline' ? commitName(entry.epoch, entry.seq) : segmentName(entry.id);
}

export function encodeSpans(spans: readonly FrameSpan[]): Buffer {
  const writer = new FieldWriter(spans.length * DIRECTORY_ENTRY_BYTES);
  for (const { lba, blocks } of spans) writer.u48(lba).u8(blocks).u8(0);
  return writer.finish();
}

/** Spans in the order of their frames. @throws ERR_VOLUME_CORRUPT when they are not a segment's. */
export function decodeSpans(reader: FieldReader, count: number): FrameSpan[] {
  const spans: FrameSpan[] = [];
  let previousBlocks = FRAME_MAX_BLOCKS;
  for (let index = 0; index < count; index += 1) {
    const span = { lba: reader.u48(), blocks: reader.u8() };
    if (reader.u8() !== 0 || span.blocks < 1 || span.blocks > previousBlocks) {
      throw reader.corrupt(`frame ${index} has ${span.blocks} blocks`);
    }
    previousBlocks = span.blocks;
    spans.push(span);
  }
  return spans;
}

export function encodeSegmentEntry(entry: SegmentEntry): Buffer {
  const writer = new FieldWriter(SEGMENT_ENTRY_BYTES);
  writer.u8(SEGMENT_KINDS[entry.kind]).u8(0).u16(0).u32(entry.generation).raw(entry.id).raw(entry.siv);
  for (let index = 0; index < FRAME_MAX_BLOCKS; index += 1) writer.u16(entry.frameCounts[index] ?? 0);
  writer.u32(entry.liveBlocks).u32(entry.baseOffset).u48(entry.epoch).u48(entry.seq);
  return writer.raw(Buffer.alloc(SEGMENT_ENTRY_BYTES - writer.length)).finish();
}

/** Undefined for an entry of zeros: no segment has that number, or it was freed. */
export function decodeSegmentEntry(bytes: Buffer, source: string): SegmentEntry | undefined {
  const reader = new FieldReader(bytes, source);
  const kindByte = reader.u8();
  if (kindByte === 0) return undefined;
  const kind = KIND_NAMES.get(kindByte);
  if (kind === undefined || reader.u8() !== 0 || reader.u16() !== 0) throw reader.corrupt(`kind ${kindByte}`);
  const generation = reader.u32();
  const id = ownCopy(reader.raw(SEGMENT_ID_BYTES));
  const siv = ownCopy(reader.raw(KEY_BYTES));
  const frameCounts = Array.from({ length: FRAME_MAX_BLOCKS }, () => reader.u16());
  const liveBlocks = reader.u32();
  const baseOffset = reader.u32();
  const epoch = reader.u48();
  const seq = reader.u48();
  if (reader.raw(reader.remaining).some((byte) => byte !== 0))
    throw reader.corrupt('reserved bytes are not zero');
  const entry = { kind, generation, id, siv, frameCounts, liveBlocks, epoch, seq, baseOffset };
  const blocks = blockCount(entry);
  if (frameCount(entry) > SEGMENT_MAX_FRAMES || blocks > SEGMENT_MAX_BLOCKS || liveBlocks > blocks) {
    throw reader.corrupt('counts over their limits');
  }
  return entry;
}

/** A block's place: 36 bits of segment number, 12 of frame, 4 of block in it. 0 is a hole (no segment has number 0). */
export function location(segmentNumber: number, frame: number, block: number): number {
  return segmentNumber * 65_536 + frame * FRAME_MAX_BLOCKS + block;
}

export function locationSegment(place: number): number {
  return Math.floor(place / 65_536);
}

export function locationFrame(place: number): number {
  return (place % 65_536) >>> 4;
}

export function locationBlock(place: number): number {
  return place % FRAME_MAX_BLOCKS;
}
