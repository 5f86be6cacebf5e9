import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  type KeyObject,
  timingSafeEqual,
} from 'node:crypto';
import { PosternError } from '../../shared/errors.ts';
import { freeBytes } from '../../shared/objects/bodies.ts';
import { ownCopy, writeU64 } from './fields.ts';
import { expandKey, type GenerationKeys, label, u32Field, u64Field } from './keys.ts';
import { TAG_BYTES } from './limits.ts';
import type { FrameSpan } from './segment.ts';

const ALGORITHM = 'aes-256-gcm';
/** lba of the directory frame in its additional data; no block has it. */
export const DIRECTORY_LBA = 2 ** 48 - 1;

/** What the frames of one segment are sealed with and bound to. */
export interface SegmentSeal {
  readonly volumeId: Buffer;
  readonly segmentId: Buffer;
  readonly generation: number;
  readonly key: KeyObject;
  /** The additional data of every frame; only its last FRAME_FIELDS_BYTES differ from frame to frame. */
  readonly data: Buffer;
}

/** index u32, lba u64, blocks u32. */
const FRAME_FIELDS_BYTES = 16;

/**
 * The MAC over a segment's plaintext from which its key is derived. `update` takes the frames in order, the directory
 * last, each with its length before it.
 */
export class SivBuilder {
  readonly #mac: ReturnType<typeof createHmac>;

  constructor(keys: GenerationKeys, volumeId: Buffer, segmentId: Buffer) {
    this.#mac = createHmac('sha256', keys.mac);
    this.#mac.update(label('seg', volumeId, segmentId, u32Field(keys.generation)));
  }

  update(frame: Uint8Array): void {
    this.#mac.update(u32Field(frame.length)).update(frame);
  }

  finish(): Buffer {
    return this.#mac.digest();
  }
}

export function segmentSeal(
  keys: GenerationKeys,
  volumeId: Buffer,
  segmentId: Buffer,
  siv: Buffer,
): SegmentSeal {
  const key = expandKey(keys.enc, label('segment-key', siv, segmentId));
  const fields = Buffer.alloc(FRAME_FIELDS_BYTES);
  const data = ownCopy(label('frame', volumeId, segmentId, u32Field(keys.generation), fields));
  return { volumeId, segmentId, generation: keys.generation, key, data };
}

/** Ciphertext and tag into `target` at `at`; returns where the next frame goes. */
export function sealFrame(
  seal: SegmentSeal,
  index: number,
  span: FrameSpan,
  plaintext: Uint8Array,
  target: Buffer,
  at: number,
): number {
  const cipher = createCipheriv(ALGORITHM, seal.key, frameNonce(index));
  cipher.setAAD(frameData(seal, index, span));
  const sealed = cipher.update(plaintext);
  target.set(sealed, at);
  freeBytes(sealed);
  cipher.final();
  target.set(cipher.getAuthTag(), at + plaintext.length);
  return at + plaintext.length + TAG_BYTES;
}

/** The plaintext of one frame. @throws ERR_VOLUME_CORRUPT when it is not the frame that was sealed there. */
export function openFrame(seal: SegmentSeal, index: number, span: FrameSpan, sealed: Buffer): Buffer {
  const plain = open(seal.key, frameNonce(index), frameData(seal, index, span), sealed);
  if (plain === undefined) {
    const id = seal.segmentId.toString('hex');
    throw new PosternError('ERR_VOLUME_CORRUPT', `frame ${index} of segment ${id} is not what was written`);
  }
  return plain;
}

export function commitSiv(
  keys: GenerationKeys,
  volumeId: Buffer,
  epoch: number,
  seq: number,
  record: Buffer,
): Buffer {
  const context = label('commit', volumeId, u64Field(epoch), u64Field(seq), u32Field(keys.generation));
  return createHmac('sha256', keys.commit)
    .update(context)
    .update(u32Field(record.length))
    .update(record)
    .digest();
}

export function commitKey(keys: GenerationKeys, epoch: number, seq: number, siv: Buffer): KeyObject {
  return expandKey(keys.enc, label('commit-key', siv, u64Field(epoch), u64Field(seq)));
}

/** Header, ciphertext and tag of a record. */
export function sealRecord(key: KeyObject, volumeId: Buffer, header: Buffer, record: Buffer): Buffer {
  const cipher = createCipheriv(ALGORITHM, key, frameNonce(0));
  cipher.setAAD(label('commit-header', volumeId, header));
  return Buffer.concat([header, cipher.update(record), cipher.final(), cipher.getAuthTag()]);
}

/** Undefined when it does not verify. */
export function openRecord(
  key: KeyObject,
  volumeId: Buffer,
  header: Buffer,
  sealed: Buffer,
): Buffer | undefined {
  return open(key, frameNonce(0), label('commit-header', volumeId, header), sealed);
}

export function sha256(...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

function open(key: KeyObject, nonce: Buffer, data: Buffer, sealed: Buffer): Buffer | undefined {
  if (sealed.length < TAG_BYTES) return undefined;
  const decipher = createDecipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(data);
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  const plain = decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES));
  try {
    decipher.final();
  } catch {
    // node:crypto reports a wrong tag by throwing; nothing else can throw here.
    return undefined;
  }
  return plain;
}

/** The key is used for one segment only, so that the frame's index is nonce enough. */
function frameNonce(index: number): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeUInt32LE(index);
  return nonce;
}

function frameData(seal: SegmentSeal, index: number, span: FrameSpan): Buffer {
  const { data } = seal;
  const at = data.length - FRAME_FIELDS_BYTES;
  data.writeUInt32LE(index, at);
  writeU64(data, span.lba, at + 4);
  data.writeUInt32LE(span.blocks, at + 12);
  return data;
}
