import { PosternError } from '../../shared/errors.ts';
import { OPTION_REPLY_HEADER_BYTES, OPTION_REPLY_MAGIC } from './constants.ts';
import { MAX_INFO_REQUESTS, MAX_QUERIES, MAX_STRING_BYTES } from './limits.ts';

/** The data of NBD_OPT_INFO and NBD_OPT_GO. */
export interface InfoOption {
  readonly name: string;
  readonly requests: readonly number[];
}

/** The data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export interface ContextOption {
  readonly name: string;
  readonly queries: readonly string[];
}

/** @throws PosternError ERR_WIRE_MALFORMED; its message is for the client. */
export function decodeInfoOption(data: Buffer): InfoOption {
  const cursor = new Cursor(data);
  const name = cursor.string('export name');
  const count = cursor.u16('number of information requests');
  if (count > MAX_INFO_REQUESTS) throw malformed(`more than ${MAX_INFO_REQUESTS} information requests`);
  const requests = Array.from({ length: count }, () => cursor.u16('information request'));
  cursor.end();
  return { name, requests };
}

/** @throws PosternError ERR_WIRE_MALFORMED; its message is for the client. */
export function decodeContextOption(data: Buffer): ContextOption {
  const cursor = new Cursor(data);
  const name = cursor.string('export name');
  const count = cursor.u32('number of queries');
  if (count > MAX_QUERIES) throw malformed(`more than ${MAX_QUERIES} queries`);
  const queries = Array.from({ length: count }, () => cursor.string('query'));
  cursor.end();
  return { name, queries };
}

/** The whole data of NBD_OPT_EXPORT_NAME is the name. @throws PosternError ERR_WIRE_MALFORMED */
export function decodeExportName(data: Buffer): string {
  return decodeString(data, 'export name');
}

export function encodeOptionReply(option: number, reply: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.allocUnsafe(OPTION_REPLY_HEADER_BYTES + payload.length);
  bytes.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(reply, 12);
  bytes.writeUInt32BE(payload.length, 16);
  payload.copy(bytes, OPTION_REPLY_HEADER_BYTES);
  return bytes;
}

/** A length, the string, and whatever follows it to the end: the shape of SERVER and META_CONTEXT replies. */
export function encodeNumberAndString(number: number, ...strings: readonly string[]): Buffer {
  const head = Buffer.allocUnsafe(4);
  head.writeUInt32BE(number);
  return Buffer.concat([head, ...strings.map((text) => Buffer.from(text))]);
}

/** An NBD_REP_INFO payload: the type, then numbers of the given widths. */
export function encodeInfo(
  type: number,
  fields: readonly (readonly [bytes: number, value: number])[],
): Buffer {
  const bytes = Buffer.alloc(fields.reduce((sum, [width]) => sum + width, 2));
  let at = bytes.writeUInt16BE(type);
  for (const [width, value] of fields) {
    at = width === 8 ? bytes.writeBigUInt64BE(BigInt(value), at) : bytes.writeUIntBE(value, at, width);
  }
  return bytes;
}

export function encodeInfoText(type: number, text: string): Buffer {
  const head = Buffer.allocUnsafe(2);
  head.writeUInt16BE(type);
  return Buffer.concat([head, Buffer.from(text)]);
}

class Cursor {
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Buffer) {
    this.#data = data;
  }

  u16(what: string): number {
    return this.#bytes(2, what).readUInt16BE();
  }

  u32(what: string): number {
    return this.#bytes(4, what).readUInt32BE();
  }

  string(what: string): string {
    const length = this.u32(`length of the ${what}`);
    if (length > MAX_STRING_BYTES)
      throw malformed(`${what} of ${length} bytes, more than ${MAX_STRING_BYTES}`);
    return decodeString(this.#bytes(length, what), what);
  }

  end(): void {
    const left = this.#data.length - this.#at;
    if (left > 0) throw malformed(`${left} bytes after the end of the option`);
  }

  #bytes(count: number, what: string): Buffer {
    if (this.#data.length - this.#at < count) throw malformed(`the option ends inside its ${what}`);
    this.#at += count;
    return this.#data.subarray(this.#at - count, this.#at);
  }
}

function decodeString(bytes: Buffer, what: string): string {
  if (bytes.length > MAX_STRING_BYTES) {
    throw malformed(`${what} of ${bytes.length} bytes, more than ${MAX_STRING_BYTES}`);
  }
  if (bytes.includes(0)) throw malformed(`${what} with a zero byte`);
  return bytes.toString('utf8');
}

function malformed(message: string): PosternError {
  return new PosternError('ERR_WIRE_MALFORMED', message);
}
