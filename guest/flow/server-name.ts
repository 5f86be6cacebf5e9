import type { Socket } from 'node:net';
import { PosternError } from '../../shared/errors.ts';

/** A ClientHello with every known extension and post-quantum key shares takes under 4 KiB. */
export const CLIENT_HELLO_MAX_BYTES = 16 * 1024;
/** A TLS client speaks first, at once. */
export const CLIENT_HELLO_TIMEOUT_MS = 10_000;
const RECORD_HEADER_BYTES = 5;
const HANDSHAKE_RECORD = 22;
const CLIENT_HELLO = 1;
const SERVER_NAME_EXTENSION = 0;

export type HelloReading =
  | { readonly kind: 'more' }
  /** Not TLS, or no ClientHello that can be read. */
  | { readonly kind: 'not-tls' }
  /** `name` is undefined where the hello names no server. */
  | { readonly kind: 'hello'; readonly name: string | undefined };

/**
 * Reads the server name (RFC 6066 section 3) of the ClientHello at the front of `bytes`, which may be cut into
 * records as small as a byte (RFC 8446 section 5.1). A hello that is longer than CLIENT_HELLO_MAX_BYTES is not read.
 */
export function readServerName(bytes: Buffer): HelloReading {
  const message = joinRecords(bytes);
  if (message === undefined) return { kind: 'not-tls' };
  if (message.length >= 1 && message[0] !== CLIENT_HELLO) return { kind: 'not-tls' };
  const length = messageLength(message);
  if (message.length < length) {
    const tooLong =
      bytes.length >= CLIENT_HELLO_MAX_BYTES || (message.length >= 4 && length > CLIENT_HELLO_MAX_BYTES);
    return tooLong ? { kind: 'not-tls' } : { kind: 'more' };
  }
  return readHello(message.subarray(4, length));
}

/**
 * The handshake bytes of the records, as far as the first message goes: what stands behind it is not looked at.
 * Undefined if a record of it is of another type.
 */
function joinRecords(bytes: Buffer): Buffer | undefined {
  let message: Buffer = Buffer.alloc(0);
  for (let offset = 0; offset < bytes.length && message.length < messageLength(message); ) {
    if (bytes[offset] !== HANDSHAKE_RECORD) return undefined;
    if (offset + 1 < bytes.length && bytes[offset + 1] !== 3) return undefined;
    if (offset + RECORD_HEADER_BYTES > bytes.length) break;
    const length = bytes.readUInt16BE(offset + 3);
    // An empty handshake record is forbidden and would let a peer send without end.
    if (length === 0) return undefined;
    const start = offset + RECORD_HEADER_BYTES;
    message = Buffer.concat([message, bytes.subarray(start, start + length)]);
    offset = start + length;
  }
  return message;
}

/** `type 1 | length 3`, RFC 8446 section 4; Infinity while its bytes are not there. */
function messageLength(message: Buffer): number {
  return message.length < 4 ? Number.POSITIVE_INFINITY : 4 + message.readUIntBE(1, 3);
}

/** `version 2 | random 32 | session 1+ | suites 2+ | compression 1+ | extensions 2+`; RFC 8446 section 4.1.2. */
function readHello(hello: Buffer): HelloReading {
  const session = skipVector(hello, 34, 1);
  const suites = skipVector(hello, session, 2);
  const compression = skipVector(hello, suites, 1);
  const end = skipVector(hello, compression, 2);
  if (end !== hello.length) return { kind: 'not-tls' };
  const seen: Buffer[] = [];
  for (let offset = compression + 2; offset < end; ) {
    if (offset + 4 > end) return { kind: 'not-tls' };
    const start = offset + 4;
    const stop = skipVector(hello, offset + 2, 2);
    if (stop > end) return { kind: 'not-tls' };
    if (hello.readUInt16BE(offset) === SERVER_NAME_EXTENSION) seen.push(hello.subarray(start, stop));
    offset = stop;
  }
  const [list] = seen;
  // Twice is forbidden (RFC 8446 section 4.2), and a server might take the other one.
  if (seen.length > 1) return { kind: 'not-tls' };
  return { kind: 'hello', name: list === undefined ? undefined : readNameList(list) };
}

/** `listLength 2 | type 1 (0: host_name) | length 2 | name`. A list of several names is read as none. */
function readNameList(list: Buffer): string | undefined {
  if (list.length < 5 || list.readUInt16BE(0) !== list.length - 2 || list[2] !== 0) return undefined;
  const end = skipVector(list, 3, 2);
  return end === list.length ? list.toString('latin1', 5) : undefined;
}

/** The offset behind a vector with a length of `lengthBytes`; past the end (Infinity) if it does not fit. */
function skipVector(bytes: Buffer, offset: number, lengthBytes: 1 | 2): number {
  if (offset + lengthBytes > bytes.length) return Number.POSITIVE_INFINITY;
  const end = offset + lengthBytes + bytes.readUIntBE(offset, lengthBytes);
  return end > bytes.length ? Number.POSITIVE_INFINITY : end;
}

/**
 * Waits for the application's ClientHello, whose server name must be one of `expected` (canonical). The bytes stay in
 * the socket. A name inside an encrypted hello (ECH) is not seen: the outer one counts.
 * @throws PosternError ERR_FLOW_DENIED (another name, none, or no TLS), ERR_WIRE_TIMEOUT, ERR_TRANSPORT_CLOSED
 */
export function requireServerName(local: Socket, expected: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    let bytes: Buffer = Buffer.alloc(0);
    const finish = (error?: PosternError): void => {
      clearTimeout(timer);
      local.off('data', onData).off('end', onEnd).off('close', onEnd).pause();
      if (bytes.length > 0 && !local.destroyed && !local.readableEnded) local.unshift(bytes);
      if (error === undefined) resolve();
      else reject(error);
    };
    const onEnd = (): void => finish(new PosternError('ERR_TRANSPORT_CLOSED', 'no TLS ClientHello came'));
    const onData = (piece: Buffer): void => {
      bytes = bytes.length === 0 ? piece : Buffer.concat([bytes, piece]);
      const reading = readServerName(bytes);
      if (reading.kind === 'more') return;
      const name = reading.kind === 'hello' ? reading.name?.toLowerCase() : undefined;
      if (name !== undefined && expected.includes(name)) finish();
      else finish(new PosternError('ERR_FLOW_DENIED', mismatch(reading, expected)));
    };
    const timer = setTimeout(() => {
      finish(
        new PosternError('ERR_WIRE_TIMEOUT', `no TLS ClientHello came in ${CLIENT_HELLO_TIMEOUT_MS} ms`),
      );
    }, CLIENT_HELLO_TIMEOUT_MS);
    local.on('data', onData).on('end', onEnd).on('close', onEnd).resume();
  });
}

function mismatch(reading: HelloReading, names: readonly string[]): string {
  const expected = names.join(' or ');
  if (reading.kind === 'not-tls') return `the rule wants TLS for ${expected}, and the first bytes are none`;
  return `the TLS ClientHello does not name ${expected}`;
}
