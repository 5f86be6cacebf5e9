import { PosternError } from '../../shared/errors.ts';
import { writeU64 } from './fields.ts';
import type { GenerationKeys, VolumeKeys } from './keys.ts';
import { KEY_BYTES } from './keys.ts';
import { RECORD_MAX_BYTES, TAG_BYTES } from './limits.ts';
import { type CommitRecord, decodeRecord, encodeRecord } from './record.ts';
import { commitKey, commitSiv, equalBytes, openRecord, sealRecord, sha256 } from './seal.ts';

export const COMMIT_MAGIC = 0x31435650;
export const COMMIT_VERSION = 1;
export const COMMIT_HEADER_BYTES = 64;

/** The clear part of a commit object. Authenticated, but to be believed only once the record has opened. */
export interface CommitHeader {
  readonly generation: number;
  readonly epoch: number;
  readonly seq: number;
  readonly recordBytes: number;
  readonly siv: Buffer;
}

/** A place in the chain of commits. */
export interface CommitPoint {
  readonly epoch: number;
  readonly seq: number;
  readonly hash: Buffer;
}

export interface SealedCommit {
  /** Header and sealed record; the inline frames follow it in the object. */
  readonly bytes: Buffer;
  /** SHA-256 of `bytes`. */
  readonly hash: Buffer;
}

export function sealCommit(
  keys: GenerationKeys,
  volume: VolumeKeys,
  epoch: number,
  seq: number,
  record: CommitRecord,
): SealedCommit {
  const plain = encodeRecord(record);
  if (plain.length > RECORD_MAX_BYTES) throw new RangeError(`commit record of ${plain.length} bytes`);
  const siv = commitSiv(keys, volume.volumeId, epoch, seq, plain);
  const header = encodeHeader({ generation: keys.generation, epoch, seq, recordBytes: plain.length, siv });
  const bytes = sealRecord(commitKey(keys, epoch, seq, siv), volume.volumeId, header, plain);
  return { bytes, hash: sha256(bytes) };
}

/** Bytes of a commit object before its inline frames. */
export function sealedCommitBytes(header: CommitHeader): number {
  return COMMIT_HEADER_BYTES + header.recordBytes + TAG_BYTES;
}

/**
 * Opens the front of a commit object, `bytes` of exactly `sealedCommitBytes(header)`.
 * @throws ERR_VOLUME_CORRUPT when it is not this volume's commit of that epoch and sequence number.
 */
export function openCommit(
  keys: GenerationKeys,
  volume: VolumeKeys,
  header: CommitHeader,
  bytes: Buffer,
): CommitRecord {
  const source = `commit ${header.epoch}-${header.seq}`;
  const clear = bytes.subarray(0, COMMIT_HEADER_BYTES);
  const key = commitKey(keys, header.epoch, header.seq, header.siv);
  const plain = openRecord(key, volume.volumeId, clear, bytes.subarray(COMMIT_HEADER_BYTES));
  const siv = plain && commitSiv(keys, volume.volumeId, header.epoch, header.seq, plain);
  if (plain === undefined || siv === undefined || !equalBytes(siv, header.siv)) {
    throw new PosternError('ERR_VOLUME_CORRUPT', `${source} is not what was written`);
  }
  return decodeRecord(plain, header.seq, source);
}

function encodeHeader(header: CommitHeader): Buffer {
  const bytes = Buffer.alloc(COMMIT_HEADER_BYTES);
  bytes.writeUInt32LE(COMMIT_MAGIC, 0);
  bytes.writeUInt8(COMMIT_VERSION, 4);
  bytes.writeUInt32LE(header.generation, 8);
  bytes.writeUInt32LE(header.recordBytes, 12);
  writeU64(bytes, header.epoch, 16);
  writeU64(bytes, header.seq, 24);
  header.siv.copy(bytes, 32);
  return bytes;
}

/** @throws ERR_VOLUME_CORRUPT, or ERR_VOLUME_VERSION for a later version of the format. */
export function decodeHeader(bytes: Buffer, epoch: number, seq: number): CommitHeader {
  const source = `commit ${epoch}-${seq}`;
  const corrupt = (what: string) => new PosternError('ERR_VOLUME_CORRUPT', `${source}: ${what}`);
  if (bytes.length < COMMIT_HEADER_BYTES) throw corrupt('is shorter than its header');
  if (bytes.readUInt32LE(0) !== COMMIT_MAGIC) throw corrupt('does not begin with PVC1');
  const version = bytes.readUInt8(4);
  if (version !== COMMIT_VERSION) {
    throw new PosternError('ERR_VOLUME_VERSION', `${source}: version ${version}, expected ${COMMIT_VERSION}`);
  }
  if (bytes.readUIntLE(5, 3) !== 0) throw corrupt('reserved bytes are not zero');
  const recordBytes = bytes.readUInt32LE(12);
  if (recordBytes > RECORD_MAX_BYTES) throw corrupt(`a record of ${recordBytes} bytes`);
  if (bytes.readBigUInt64LE(16) !== BigInt(epoch) || bytes.readBigUInt64LE(24) !== BigInt(seq)) {
    throw corrupt('says that it is another commit');
  }
  const siv = Buffer.from(bytes.subarray(32, 32 + KEY_BYTES));
  return { generation: bytes.readUInt32LE(8), epoch, seq, recordBytes, siv };
}
