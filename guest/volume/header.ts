import { createHash, createHmac } from 'node:crypto';
import { xchacha20poly1305 } from '@noble/ciphers/chacha.js';
import { PosternError } from '../../shared/errors.ts';
import { FieldReader, FieldWriter } from './fields.ts';
import { derive, KEY_BYTES, label, u32Field, VOLUME_ID_BYTES } from './keys.ts';

export const HEADER_MAGIC = 0x31485650;
export const HEADER_VERSION = 1;
/** Always the same size, so that a reader can ask for exactly all of it. */
export const HEADER_BYTES = 512;
const VOLUME_NAME_MAX_BYTES = 128;
const WRAP_NONCE_BYTES = 24;
const WRAP_TAG_BYTES = 16;
/** Nonce, the generation's key and the volume's base key sealed, tag. */
export const WRAP_BYTES = WRAP_NONCE_BYTES + 2 * KEY_BYTES + WRAP_TAG_BYTES;
export const ROOT_ID_BYTES = 8;
const SALT_BYTES = 16;
const OWNER_KEY_BYTES = 32;

/** When a FLUSH is answered. */
export type FlushMode =
  /** Stored and anchored. */
  | { readonly kind: 'strict' }
  /** Stored; at most so many commits, and none older than so long, are not anchored yet: the window of a rollback. */
  | { readonly kind: 'lazy'; readonly maxMs: number; readonly maxCommits: number }
  /** Stored; nothing is anchored, and any rollback goes unnoticed. Development only. */
  | { readonly kind: 'none' };

const MODES = { strict: 1, lazy: 2, none: 3 } as const;

/** The facts of a volume that never change. Public, and authenticated by every wrap. */
export interface VolumeHeader {
  readonly volumeId: Buffer;
  /** By which the anchor knows the volume; random, so that an anchor cannot tell which volume it counts for. */
  readonly anchorId: Buffer;
  readonly name: string;
  readonly mode: FlushMode;
  /** Salt for a root key that comes from a passphrase. */
  readonly salt: Buffer;
  /** Ed25519 public key of the owner, who must sign for a restore; undefined: nobody is asked. */
  readonly ownerKey: Buffer | undefined;
}

export function encodeVolumeHeader(header: VolumeHeader): Buffer {
  const name = Buffer.from(header.name, 'utf8');
  if (name.length < 1 || name.length > VOLUME_NAME_MAX_BYTES)
    throw new RangeError(`a name of ${name.length} bytes`);
  const lazy = header.mode.kind === 'lazy' ? header.mode : { maxMs: 0, maxCommits: 0 };
  const writer = new FieldWriter(256);
  writer
    .u32(HEADER_MAGIC)
    .u16(HEADER_VERSION)
    .u8(MODES[header.mode.kind])
    .u8(header.ownerKey ? 1 : 0);
  writer.u32(lazy.maxMs).u32(lazy.maxCommits).raw(header.volumeId).raw(header.anchorId).raw(header.salt);
  writer
    .raw(header.ownerKey ?? Buffer.alloc(0))
    .u8(name.length)
    .raw(name);
  return writer.raw(Buffer.alloc(HEADER_BYTES - writer.length)).finish();
}

/** Everything in it is unproven until a wrap has opened. @throws ERR_VOLUME_CORRUPT, ERR_VOLUME_VERSION */
export function decodeVolumeHeader(bytes: Buffer): VolumeHeader {
  const reader = new FieldReader(bytes, 'volume header');
  if (bytes.length !== HEADER_BYTES) throw reader.corrupt(`${bytes.length} bytes`);
  if (reader.u32() !== HEADER_MAGIC) throw reader.corrupt('does not begin with PVH1');
  const version = reader.u16();
  if (version !== HEADER_VERSION) {
    throw new PosternError(
      'ERR_VOLUME_VERSION',
      `volume header version ${version}, expected ${HEADER_VERSION}`,
    );
  }
  const modeByte = reader.u8();
  const ownerByte = reader.u8();
  const mode = decodeMode(reader, modeByte, reader.u32(), reader.u32());
  const volumeId = Buffer.from(reader.raw(VOLUME_ID_BYTES));
  const anchorId = Buffer.from(reader.raw(VOLUME_ID_BYTES));
  const salt = Buffer.from(reader.raw(SALT_BYTES));
  if (ownerByte > 1) throw reader.corrupt(`owner ${ownerByte}`);
  const ownerKey = ownerByte === 1 ? Buffer.from(reader.raw(OWNER_KEY_BYTES)) : undefined;
  const name = reader.text(reader.count(reader.u8(), VOLUME_NAME_MAX_BYTES, 1, 'bytes of a name'));
  if (reader.raw(reader.remaining).some((byte) => byte !== 0)) throw reader.corrupt('bytes after its end');
  return { volumeId, anchorId, name, mode, salt, ownerKey };
}

function decodeMode(reader: FieldReader, mode: number, maxMs: number, maxCommits: number): FlushMode {
  if (mode === MODES.lazy && maxMs > 0 && maxCommits > 0) return { kind: 'lazy', maxMs, maxCommits };
  if (mode !== MODES.lazy && maxMs === 0 && maxCommits === 0) {
    if (mode === MODES.strict) return { kind: 'strict' };
    if (mode === MODES.none) return { kind: 'none' };
  }
  throw reader.corrupt(`mode ${mode}`);
}

/** Names the wraps made for one root key without saying anything of it. */
export function rootId(rootKey: Buffer, volumeId: Buffer): Buffer {
  return createHmac('sha256', rootKey).update(label('root-id', volumeId)).digest().subarray(0, ROOT_ID_BYTES);
}

export interface WrappedKeys {
  readonly generationKey: Buffer;
  /** The same in every generation. */
  readonly baseKey: Buffer;
}

/** Seals one generation's keys for the holder of `rootKey`; bound to every byte of the header and to the volume's name. */
export function wrapKeys(
  rootKey: Buffer,
  headerBytes: Buffer,
  generation: number,
  keys: WrappedKeys,
  nonce: Buffer,
): Buffer {
  const plain = Buffer.concat([keys.generationKey, keys.baseKey]);
  const sealed = xchacha20poly1305(wrappingKey(rootKey), nonce, wrapData(headerBytes, generation)).encrypt(
    plain,
  );
  return Buffer.concat([nonce, sealed]);
}

/** @throws ERR_VOLUME_KEY when this root key does not open it, or the header is not the one it was made with. */
export function unwrapKeys(
  rootKey: Buffer,
  headerBytes: Buffer,
  generation: number,
  wrap: Buffer,
): WrappedKeys {
  const refused = () =>
    new PosternError('ERR_VOLUME_KEY', `the key does not open generation ${generation} of this volume`);
  if (wrap.length !== WRAP_BYTES) throw refused();
  const nonce = wrap.subarray(0, WRAP_NONCE_BYTES);
  const cipher = xchacha20poly1305(wrappingKey(rootKey), nonce, wrapData(headerBytes, generation));
  let plain: Uint8Array;
  try {
    plain = cipher.decrypt(wrap.subarray(WRAP_NONCE_BYTES));
  } catch {
    // @noble/ciphers reports a wrong tag by throwing; nothing else can throw for these lengths.
    throw refused();
  }
  const bytes = Buffer.from(plain);
  return { generationKey: bytes.subarray(0, KEY_BYTES), baseKey: bytes.subarray(KEY_BYTES) };
}

function wrappingKey(rootKey: Buffer): Buffer {
  return derive(rootKey, label('wrap'));
}

function wrapData(headerBytes: Buffer, generation: number): Buffer {
  return label('wrap-data', createHash('sha256').update(headerBytes).digest(), u32Field(generation));
}
