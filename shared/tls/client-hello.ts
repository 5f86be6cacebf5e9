import { isPosternError, PosternError } from '../errors.ts';
import { canonicalName } from '../policy/name.ts';

/**
 * A hello with two post-quantum key shares has some 3 KiB, one with many tickets perhaps 10; a flow that has not
 * finished one after 32 KiB is up to something else.
 */
export const CLIENT_HELLO_MAX_BYTES = 32 * 1024;
/** RFC 8446 section 5.1. */
const RECORD_MAX_BYTES = 16_384;
const RECORD_HEADER_BYTES = 5;
const HANDSHAKE_HEADER_BYTES = 4;

const CONTENT_HANDSHAKE = 22;
const HANDSHAKE_CLIENT_HELLO = 1;
const EXTENSION_SERVER_NAME = 0;
/** RFC 9849: the name that counts is then inside, encrypted to the server. */
const EXTENSION_ENCRYPTED_CLIENT_HELLO = 0xfe0d;
const NAME_TYPE_HOST = 0;

export interface ClientHello {
  /** In its one spelling (A-labels, lower case, no trailing dot). */
  readonly serverName?: string;
  /** The hello carries Encrypted Client Hello, real or for show (GREASE): `serverName` need not be what is reached. */
  readonly encrypted: boolean;
}

export type ClientHelloProgress =
  | { readonly state: 'more' }
  | { readonly state: 'hello'; readonly hello: ClientHello }
  | { readonly state: 'refused'; readonly reason: 'not-tls' | 'malformed' | 'too-large' };

const MORE: ClientHelloProgress = { state: 'more' };

/**
 * Reads a TLS ClientHello from the first bytes of a flow, however they are cut into segments and records
 * (RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3; `client-hello.md`). It keeps one message of at most
 * CLIENT_HELLO_MAX_BYTES; the caller keeps the bytes that go on to the server. An answer other than `more` is final.
 */
export class ClientHelloReader {
  readonly #header = Buffer.alloc(RECORD_HEADER_BYTES);
  #headerBytes = 0;
  /** What the record at hand still holds. */
  #recordLeft = 0;
  #message = Buffer.alloc(HANDSHAKE_HEADER_BYTES);
  #messageBytes = 0;
  #progress: ClientHelloProgress = MORE;

  push(chunk: Buffer): ClientHelloProgress {
    for (let offset = 0; offset < chunk.length && this.#progress.state === 'more'; ) {
      offset += this.#recordLeft === 0 ? this.#takeHeader(chunk, offset) : this.#takeFragment(chunk, offset);
    }
    return this.#progress;
  }

  #takeHeader(chunk: Buffer, offset: number): number {
    const taken = chunk.copy(this.#header, this.#headerBytes, offset);
    this.#headerBytes += taken;
    // What is no TLS at all is known by its first bytes: the flow need not wait for five.
    const [type, major] = this.#header;
    if (type !== CONTENT_HANDSHAKE || (this.#headerBytes > 1 && major !== 3)) this.#refuse('not-tls');
    if (this.#headerBytes < RECORD_HEADER_BYTES) return taken;
    this.#headerBytes = 0;
    this.#recordLeft = this.#header.readUInt16BE(3);
    if (this.#recordLeft === 0 || this.#recordLeft > RECORD_MAX_BYTES) this.#refuse('malformed');
    return taken;
  }

  #takeFragment(chunk: Buffer, offset: number): number {
    const end = Math.min(offset + this.#recordLeft, chunk.length);
    const taken = chunk.copy(this.#message, this.#messageBytes, offset, end);
    this.#messageBytes += taken;
    this.#recordLeft -= taken;
    if (this.#messageBytes < this.#message.length) return taken;
    if (this.#messageBytes === HANDSHAKE_HEADER_BYTES) this.#takeLength();
    else if (this.#recordLeft > 0) this.#refuse('malformed');
    else this.#finish();
    return taken;
  }

  #takeLength(): void {
    const length = this.#message.readUIntBE(1, 3);
    if (this.#message[0] !== HANDSHAKE_CLIENT_HELLO || length === 0) this.#refuse('malformed');
    else if (length > CLIENT_HELLO_MAX_BYTES) this.#refuse('too-large');
    else this.#message = Buffer.concat([this.#message, Buffer.alloc(length)]);
  }

  #finish(): void {
    try {
      const hello = decodeClientHello(this.#message.subarray(HANDSHAKE_HEADER_BYTES));
      this.#progress = { state: 'hello', hello };
    } catch (error) {
      if (!isPosternError(error, 'ERR_WIRE_MALFORMED')) throw error;
      this.#refuse('malformed');
    }
  }

  /** The first thing that is wrong counts, wherever the segments were cut. */
  #refuse(reason: 'not-tls' | 'malformed' | 'too-large'): void {
    if (this.#progress.state === 'more') this.#progress = { state: 'refused', reason };
  }
}

/** @throws PosternError ERR_WIRE_MALFORMED */
function decodeClientHello(body: Buffer): ClientHello {
  const cursor = new Cursor(body);
  if (cursor.number(2) >> 8 !== 3) throw malformed('version');
  cursor.bytes(32);
  if (cursor.bytes(cursor.number(1)).length > 32) throw malformed('session id');
  const cipherSuites = cursor.bytes(cursor.number(2)).length;
  if (cipherSuites < 2 || cipherSuites % 2 !== 0) throw malformed('cipher suites');
  if (cursor.bytes(cursor.number(1)).length < 1) throw malformed('compression methods');
  // Before TLS 1.3 a hello may end here.
  const hello = cursor.left === 0 ? { encrypted: false } : decodeExtensions(cursor.bytes(cursor.number(2)));
  if (cursor.left > 0) throw malformed('bytes behind the extensions');
  return hello;
}

function decodeExtensions(bytes: Buffer): ClientHello {
  const cursor = new Cursor(bytes);
  const seen = new Set<number>();
  let serverName: string | undefined;
  while (cursor.left > 0) {
    const type = cursor.number(2);
    const value = cursor.bytes(cursor.number(2));
    // RFC 8446 section 4.2. Of two server names one peer would take the first, another the last.
    if (seen.has(type)) throw malformed(`extension ${type} twice`);
    seen.add(type);
    if (type === EXTENSION_SERVER_NAME) serverName = decodeServerName(value);
  }
  const encrypted = seen.has(EXTENSION_ENCRYPTED_CLIENT_HELLO);
  return serverName === undefined ? { encrypted } : { serverName, encrypted };
}

/** RFC 6066 section 3: a list with at most one name of each type, of which only host_name exists. */
function decodeServerName(value: Buffer): string {
  const outer = new Cursor(value);
  const list = new Cursor(outer.bytes(outer.number(2)));
  if (list.number(1) !== NAME_TYPE_HOST) throw malformed('type of server name');
  const name = list.bytes(list.number(2)).toString('latin1');
  if (list.left > 0 || outer.left > 0) throw malformed('more than one server name');
  // A-labels only: other than ASCII is not what a server would compare.
  const canonical = /^[\x21-\x7e]+$/.test(name) ? canonicalName(name) : undefined;
  if (canonical === undefined) throw malformed('server name');
  return canonical;
}

class Cursor {
  readonly #bytes: Buffer;
  #offset = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#offset;
  }

  number(size: 1 | 2): number {
    return this.bytes(size).readUIntBE(0, size);
  }

  bytes(length: number): Buffer {
    if (length > this.left) throw malformed(`${length} bytes at ${this.#offset}, ${this.left} left`);
    this.#offset += length;
    return this.#bytes.subarray(this.#offset - length, this.#offset);
  }
}

function malformed(what: string): PosternError {
  return new PosternError('ERR_WIRE_MALFORMED', `ClientHello: ${what}`);
}
