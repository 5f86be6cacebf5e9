import { createHmac, createSecretKey, hkdfSync, type KeyObject } from 'node:crypto';

export const KEY_BYTES = 32;
export const VOLUME_ID_BYTES = 16;
export const SEGMENT_ID_BYTES = 16;

/** Every label of the volume begins with this, so that no other use of a key can produce the same input. */
const DOMAIN = 'postern/volume/v1';

/** What one generation of a volume is sealed with. Never leaves the guest; never logged. */
export interface GenerationKeys {
  readonly generation: number;
  /** HMAC over plaintext frames: a segment's siv. */
  readonly mac: KeyObject;
  /** HKDF's pseudorandom key (RFC 5869, section 2.2) of K_enc: each segment's and each commit's key is expanded from it. */
  readonly enc: KeyObject;
  /** HMAC over a commit record: its siv. */
  readonly commit: KeyObject;
}

/** What stays the same when the generation changes. */
export interface VolumeKeys {
  readonly volumeId: Buffer;
  /** Names of objects. */
  readonly name: KeyObject;
  /** The volume's blinded name in the anchor's leaves. */
  readonly leafName: Buffer;
  /** Seed of the Ed25519 key that signs for the anchor. */
  readonly anchorSeed: Buffer;
}

/**
 * Injective encoding of a label and its fields: everything variable carries its length, so that no two different
 * lists of fields give the same bytes. Layout in format.md, "Labels".
 */
export function label(name: string, ...fields: readonly Uint8Array[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const field of [Buffer.from(DOMAIN), Buffer.from(name), ...fields]) {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(field.length);
    parts.push(length, field);
  }
  return Buffer.concat(parts);
}

export function u64Field(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

export function u32Field(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** HKDF-SHA256 (RFC 5869) with an empty salt and a `label` as info; KEY_BYTES long. */
export function derive(key: KeyObject | Buffer, info: Buffer): Buffer {
  return Buffer.from(hkdfSync('sha256', key, Buffer.alloc(0), info, KEY_BYTES));
}

/** As `derive`, for a key that is used often: node:crypto takes a KeyObject three times as fast as bytes. */
export function deriveKey(key: KeyObject | Buffer, info: Buffer): KeyObject {
  return createSecretKey(derive(key, info));
}

/** The first half of HKDF-SHA256 with an empty salt: the same for every key that is derived from `key`. */
function extract(key: Buffer): KeyObject {
  return createSecretKey(createHmac('sha256', Buffer.alloc(KEY_BYTES)).update(key).digest());
}

const FIRST_BLOCK = Buffer.from([1]);

/** The second half, for KEY_BYTES, which is one block: in all as `deriveKey`, at a quarter of what that costs. */
export function expandKey(extracted: KeyObject, info: Buffer): KeyObject {
  return createSecretKey(createHmac('sha256', extracted).update(info).update(FIRST_BLOCK).digest());
}

export function deriveGenerationKeys(
  generationKey: Buffer,
  volumeId: Buffer,
  generation: number,
): GenerationKeys {
  const fields = [volumeId, u32Field(generation)];
  return {
    generation,
    mac: deriveKey(generationKey, label('mac', ...fields)),
    enc: extract(derive(generationKey, label('enc', ...fields))),
    commit: deriveKey(generationKey, label('commit', ...fields)),
  };
}

export function deriveVolumeKeys(baseKey: Buffer, volumeId: Buffer): VolumeKeys {
  const name = deriveKey(baseKey, label('name', volumeId));
  return {
    volumeId,
    name,
    leafName: createHmac('sha256', name).update(label('leaf', volumeId)).digest(),
    anchorSeed: derive(baseKey, label('anchor-seed', volumeId)),
  };
}

/**
 * A segment's name. Deterministic on purpose: a forked guest that continues the same epoch meets its twin's name, and
 * the store's create-only PUT refuses one of them.
 */
export function segmentId(keys: VolumeKeys, epoch: number, segmentNumber: number): Buffer {
  const input = label('segment-id', keys.volumeId, u64Field(epoch), u64Field(segmentNumber));
  return createHmac('sha256', keys.name).update(input).digest().subarray(0, SEGMENT_ID_BYTES);
}

/** The same for the frames inside a commit object, whose name is its epoch and sequence number. */
export function inlineSegmentId(keys: VolumeKeys, epoch: number, seq: number): Buffer {
  const input = label('inline-id', keys.volumeId, u64Field(epoch), u64Field(seq));
  return createHmac('sha256', keys.name).update(input).digest().subarray(0, SEGMENT_ID_BYTES);
}
