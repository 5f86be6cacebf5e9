import { createHash } from 'node:crypto';
import type { AnchorHead } from './anchor.ts';

/** Each record in a block of its own: what harms one of them while it is written leaves the other. */
export const SLOT_BYTES = 4096;
export const HEAD_FILE_BYTES = 2 * SLOT_BYTES;
export const RECORD_BYTES = 96;

const MAGIC = 0x31414650;
const VERSION = 1;
const CHECK_OFFSET = 64;

/** A head and how many came before it; layout in file.md. */
export interface TurnedHead {
  readonly turn: number;
  readonly head: AnchorHead;
}

export function slotOffset(turn: number): number {
  return (turn % 2) * SLOT_BYTES;
}

export function encodeHead({ turn, head }: TurnedHead): Buffer {
  const bytes = Buffer.alloc(RECORD_BYTES);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(VERSION, 4);
  bytes.writeBigUInt64LE(BigInt(turn), 8);
  bytes.writeBigUInt64LE(BigInt(head.epoch), 16);
  bytes.writeBigUInt64LE(BigInt(head.seq), 24);
  head.commitHash.copy(bytes, 32, 0, 32);
  checkOf(bytes).copy(bytes, CHECK_OFFSET);
  return bytes;
}

/** The newest record of a whole file; undefined when none is valid. */
export function newestHead(file: Buffer): TurnedHead | undefined {
  if (file.length !== HEAD_FILE_BYTES) return undefined;
  const [even, odd] = [decodeSlot(file, 0), decodeSlot(file, 1)];
  if (even === undefined || odd === undefined) return even ?? odd;
  return even.turn > odd.turn ? even : odd;
}

function decodeSlot(file: Buffer, slot: number): TurnedHead | undefined {
  const bytes = file.subarray(slot * SLOT_BYTES, slot * SLOT_BYTES + RECORD_BYTES);
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
