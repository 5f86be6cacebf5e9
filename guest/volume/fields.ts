import { PosternError } from '../../shared/errors.ts';

/** Largest value of a u48; block numbers, epochs and sequence numbers stay below it. */
export const U48_MAX = 2 ** 48 - 1;

/** Little-endian fields of known widths, appended to one growing buffer. */
export class FieldWriter {
  #bytes: Buffer;
  #length = 0;

  constructor(sizeHintBytes = 1024) {
    this.#bytes = Buffer.alloc(sizeHintBytes);
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): this {
    const at = this.#room(1);
    this.#bytes.writeUInt8(value, at);
    return this;
  }

  u16(value: number): this {
    const at = this.#room(2);
    this.#bytes.writeUInt16LE(value, at);
    return this;
  }

  u32(value: number): this {
    const at = this.#room(4);
    this.#bytes.writeUInt32LE(value, at);
    return this;
  }

  u48(value: number): this {
    const at = this.#room(6);
    this.#bytes.writeUIntLE(value, at, 6);
    return this;
  }

  /** A whole number up to 2^53 - 1 in eight bytes. */
  u64(value: number): this {
    const at = this.#room(8);
    writeU64(this.#bytes, value, at);
    return this;
  }

  raw(bytes: Uint8Array): this {
    const at = this.#room(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** A copy that the caller owns. */
  finish(): Buffer {
    return Buffer.from(this.#bytes.subarray(0, this.#length));
  }

  /** May replace the buffer: whoever calls it takes `#bytes` afterwards. */
  #room(byteCount: number): number {
    const at = this.#length;
    if (at + byteCount > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(this.#bytes.length * 2, at + byteCount));
      this.#bytes.copy(larger, 0, 0, at);
      this.#bytes = larger;
    }
    this.#length = at + byteCount;
    return at;
  }
}

/** The reverse of FieldWriter. Every read is bounded by what is there; past it: ERR_VOLUME_CORRUPT naming `source`. */
export class FieldReader {
  readonly #bytes: Buffer;
  readonly #source: string;
  #at = 0;

  constructor(bytes: Buffer, source: string) {
    this.#bytes = bytes;
    this.#source = source;
  }

  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  u8(): number {
    return this.#bytes.readUInt8(this.#take(1));
  }

  u16(): number {
    return this.#bytes.readUInt16LE(this.#take(2));
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.#take(4));
  }

  u48(): number {
    return this.#bytes.readUIntLE(this.#take(6), 6);
  }

  u64(): number {
    const value = readU64(this.#bytes, this.#take(8));
    if (!Number.isSafeInteger(value)) throw this.corrupt('a number over 2^53');
    return value;
  }

  /** A view into the input, not a copy. */
  raw(byteCount: number): Buffer {
    const at = this.#take(byteCount);
    return this.#bytes.subarray(at, at + byteCount);
  }

  /** UTF-8, and nothing that merely decodes to something. */
  text(byteCount: number): string {
    const bytes = this.raw(byteCount);
    const text = bytes.toString('utf8');
    if (!Buffer.from(text, 'utf8').equals(bytes)) throw this.corrupt('a text that is not UTF-8');
    return text;
  }

  /** A count of entries that take at least `entryBytes` each, refused before anything is allocated for them. */
  count(value: number, limit: number, entryBytes: number, what: string): number {
    if (value > limit) throw this.corrupt(`${value} ${what}, over ${limit}`);
    if (value * entryBytes > this.remaining) throw this.corrupt(`${value} ${what} announced, fewer present`);
    return value;
  }

  end(): void {
    if (this.remaining !== 0) throw this.corrupt(`${this.remaining} bytes too many`);
  }

  corrupt(what: string): PosternError {
    return new PosternError('ERR_VOLUME_CORRUPT', `${this.#source}: ${what}`);
  }

  #take(byteCount: number): number {
    const at = this.#at;
    if (byteCount > this.#bytes.length - at) throw this.corrupt('ends too early');
    this.#at = at + byteCount;
    return at;
  }
}

/** `readBigUInt64LE` without the bigint; exact up to 2^53. */
export function readU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x1_0000_0000;
}

export function writeU64(bytes: Buffer, value: number, at: number): void {
  const high = Math.floor(value / 0x1_0000_0000);
  bytes.writeUInt32LE(value - high * 0x1_0000_0000, at);
  bytes.writeUInt32LE(high, at + 4);
}

/** For a few bytes that are kept for long: cut from a slab that others share, they would keep all of it. */
export function ownCopy(bytes: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}
