import { createHash } from 'node:crypto';
import { PosternError } from '../../shared/errors.ts';
import type { AnchorHead } from './anchor.ts';

/** Each copy of a record in a block of its own: what harms one of them leaves the other. */
export const COPY_BYTES = 4096;
/** Two copies; what harms a slot while it is written leaves the other slot. */
export const SLOT_BYTES = 2 * COPY_BYTES;
export const HEAD_FILE_BYTES = 2 * SLOT_BYTES;
export const RECORD_BYTES = 96;

const MAGIC = 0x31414650;
const VERSION = 2;
const CHECK_OFFSET = 64;

/** A head and how many came before it; layout in file.md. */
export interface TurnedHead {
  readonly turn: number;
  readonly head: AnchorHead;
}

export function slotOffset(turn: number): number {
  return (turn % 2) * SLOT_BYTES;
}

/** Both copies of a record, to be written at once to `slotOffset(turn)`. */
export function encodeHead({ turn, head }: TurnedHead): Buffer {
  const bytes = Buffer.alloc(COPY_BYTES + RECORD_BYTES);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(VERSION, 4);
  bytes.writeBigUInt64LE(BigInt(turn), 8);
  bytes.writeBigUInt64LE(BigInt(head.epoch), 16);
  bytes.writeBigUInt64LE(BigInt(head.seq), 24);
  head.commitHash.copy(bytes, 32, 0, 32);
  checkOf(bytes).copy(bytes, CHECK_OFFSET);
  bytes.copy(bytes, COPY_BYTES, 0, RECORD_BYTES);
  return bytes;
}

/** A file that holds nothing but this head, which is turn 1. */
export function encodeFirst(head: AnchorHead): Buffer {
  const bytes = Buffer.alloc(HEAD_FILE_BYTES);
  for (const turn of [0, 1]) encodeHead({ turn, head }).copy(bytes, slotOffset(turn));
  return bytes;
}

/**
 * The newest record of a whole file. A crash leaves at least one copy of each slot as it was or as it is to be, so a slot
 * without any is damage, and what it held is unknown: nothing older is given out in its place.
 * @throws PosternError ERR_ANCHOR_CORRUPT
 */
export function newestHead(file: Buffer, path: string): TurnedHead {
  if (file.length !== HEAD_FILE_BYTES) {
    throw damaged(path, `it should have ${HEAD_FILE_BYTES} bytes, and has ${describeLength(file.length)}`);
  }
  const [even, odd] = [0, 1].map((slot) => newestOf(file, slot));
  if (even === undefined || odd === undefined) throw damaged(path, 'a record is lost, with its copy');
  return even.turn > odd.turn ? even : odd;
}

function newestOf(file: Buffer, slot: number): TurnedHead | undefined {
  const [one, other] = [0, COPY_BYTES].map((at) => decodeCopy(file, slot, slot * SLOT_BYTES + at));
  if (one === undefined || other === undefined) return one ?? other;
  return one.turn > other.turn ? one : other;
}

function decodeCopy(file: Buffer, slot: number, offset: number): TurnedHead | undefined {
  const bytes = file.subarray(offset, offset + RECORD_BYTES);
  if (bytes.readUInt32LE(0) !== MAGIC || bytes.readUInt32LE(4) !== VERSION) return undefined;
  if (!checkOf(bytes).equals(bytes.subarray(CHECK_OFFSET))) return undefined;
  const [turn, epoch, seq] = [8, 16, 24].map((at) => Number(bytes.readBigUInt64LE(at)));
  if (!isCount(turn) || !isCount(epoch) || !isCount(seq) || turn % 2 !== slot) return undefined;
  return { turn, head: { epoch, seq, commitHash: Buffer.from(bytes.subarray(32, 64)) } };
}

function isCount(value: number | undefined): value is number {
  return Number.isSafeInteger(value);
}

function checkOf(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes.subarray(0, CHECK_OFFSET)).digest();
}

/** A reader asks for one byte more than there should be. */
function describeLength(length: number): string {
  return length > HEAD_FILE_BYTES ? 'more' : String(length);
}

function damaged(path: string, what: string): PosternError {
  const text = [
    `${path} is damaged: ${what}.`,
    'What it knew may be the newest state of the volume, and nothing older is taken for it.',
    'Put back a copy of this file that was made after the last flush of the volume; without one, restore what you have elsewhere into a new volume',
  ];
  return new PosternError('ERR_ANCHOR_CORRUPT', text.join(' '));
}
