import { PosternError } from '../errors.ts';
import { decodeEndpoint, type Endpoint, encodeEndpoint } from './endpoint.ts';
import { decodeReply, encodeReply, REPLY_BYTES, type ReplyStatus } from './reply.ts';

/** See datagram.md. The frames of a stream of kind `udp`, which is one association. */
export const DATAGRAM_HEADER_BYTES = 4;
/** The most that one UDP datagram over IPv4 carries: 65,535 less 20 of IP and 8 of UDP. */
export const DATAGRAM_MAX_BYTES = 65_507;
/** Family, an IPv6 address and a port. */
const ENDPOINT_MAX_BYTES = 19;
/** What `length` may say. No frame of version 1 takes more; unknown types up to it are skipped. */
export const DATAGRAM_FRAME_MAX_BYTES = ENDPOINT_MAX_BYTES + DATAGRAM_MAX_BYTES;

export type UdpFrame =
  /** From the guest: send it to `remote`. From the parent: it came from `remote`. */
  | { readonly type: 'datagram'; readonly remote: Endpoint; readonly payload: Buffer }
  /** From the parent: a datagram to `remote` was not sent, and why. */
  | { readonly type: 'undelivered'; readonly remote: Endpoint; readonly status: ReplyStatus }
  /** The last frame of the parent, which ends the association of its own accord. */
  | { readonly type: 'close'; readonly status: ReplyStatus };

const FRAME_TYPES = { datagram: 1, undelivered: 2, close: 3 } as const;

/** `type u8 | 0 | length u16 | endpoint | payload`. @throws RangeError for a payload over DATAGRAM_MAX_BYTES */
export function encodeDatagram(remote: Endpoint, payload: Buffer): Buffer {
  if (payload.length > DATAGRAM_MAX_BYTES) throw new RangeError(`datagram of ${payload.length} bytes`);
  return encodeFrame('datagram', encodeEndpoint(remote), payload);
}

/** `type u8 | 0 | length u16 | endpoint | reply`. */
export function encodeUndelivered(remote: Endpoint, status: ReplyStatus): Buffer {
  return encodeFrame('undelivered', encodeEndpoint(remote), encodeReply(status));
}

/** `type u8 | 0 | length u16 | reply`. */
export function encodeClose(status: ReplyStatus): Buffer {
  return encodeFrame('close', encodeReply(status));
}

function encodeFrame(type: keyof typeof FRAME_TYPES, ...parts: readonly Buffer[]): Buffer {
  const header = Buffer.alloc(DATAGRAM_HEADER_BYTES);
  const frame = Buffer.concat([header, ...parts]);
  frame.writeUInt8(FRAME_TYPES[type], 0);
  frame.writeUInt16BE(frame.length - DATAGRAM_HEADER_BYTES, 2);
  return frame;
}

/**
 * Cuts frames out of whatever pieces the stream comes in. It keeps one unfinished frame at most, of
 * DATAGRAM_FRAME_MAX_BYTES. Payloads are views of what was pushed, or of a buffer that is used once.
 */
export class UdpFrameDecoder {
  #header: Buffer = Buffer.alloc(0);
  #body: Buffer | undefined;
  #filledBytes = 0;

  /**
   * The frames that end in this piece; frames of unknown type are skipped, so that later versions may add some.
   * @throws PosternError ERR_WIRE_TOO_LARGE, ERR_WIRE_MALFORMED; the stream is of no use after that.
   */
  push(piece: Buffer): UdpFrame[] {
    return [...this.read(piece)].filter((frame) => frame !== undefined);
  }

  /**
   * The same one by one, as they are asked for, undefined for a frame that is skipped. A piece may hold thousands; the next
   * piece is for when there are no more.
   */
  *read(piece: Buffer): Generator<UdpFrame | undefined, void> {
    const frames: (UdpFrame | undefined)[] = [];
    for (let rest = piece; rest.length > 0; ) {
      rest = this.#take(rest, frames);
      if (frames.length > 0) yield frames.pop();
    }
  }

  /** Gives what is left behind the one frame that it takes; not all of it may have come. */
  #take(rest: Buffer, frames: (UdpFrame | undefined)[]): Buffer {
    if (this.#body !== undefined) return this.#fill(this.#body, rest, frames);
    const joined = this.#header.length === 0 ? rest : Buffer.concat([this.#header, rest.subarray(0, 4)]);
    if (joined.length < DATAGRAM_HEADER_BYTES) {
      this.#header = Buffer.from(joined);
      return rest.subarray(rest.length);
    }
    const length = readLength(joined);
    const behind = rest.subarray(DATAGRAM_HEADER_BYTES - this.#header.length);
    if (behind.length >= length) {
      frames.push(decodeUdpFrame(joined.readUInt8(0), behind.subarray(0, length)));
      this.#header = Buffer.alloc(0);
      return behind.subarray(length);
    }
    this.#header = Buffer.from(joined.subarray(0, DATAGRAM_HEADER_BYTES));
    this.#body = Buffer.alloc(length);
    this.#filledBytes = 0;
    return behind.length === 0 ? behind : this.#fill(this.#body, behind, frames);
  }

  #fill(body: Buffer, rest: Buffer, frames: (UdpFrame | undefined)[]): Buffer {
    const takenBytes = rest.copy(body, this.#filledBytes);
    this.#filledBytes += takenBytes;
    if (this.#filledBytes === body.length) {
      frames.push(decodeUdpFrame(this.#header.readUInt8(0), body));
      this.#header = Buffer.alloc(0);
      this.#body = undefined;
    }
    return rest.subarray(takenBytes);
  }
}

function readLength(header: Buffer): number {
  if (header.readUInt8(1) !== 0) throw malformed(`udp frame with ${header.readUInt8(1)} for its zero`);
  const length = header.readUInt16BE(2);
  if (length <= DATAGRAM_FRAME_MAX_BYTES) return length;
  throw new PosternError(
    'ERR_WIRE_TOO_LARGE',
    `udp frame of ${length} bytes, over ${DATAGRAM_FRAME_MAX_BYTES}`,
  );
}

/** What is behind the header. Undefined for an unknown type. @throws PosternError ERR_WIRE_MALFORMED */
function decodeUdpFrame(type: number, body: Buffer): UdpFrame | undefined {
  if (type === FRAME_TYPES.close) return { type: 'close', status: readStatus(body) };
  if (type !== FRAME_TYPES.datagram && type !== FRAME_TYPES.undelivered) return undefined;
  const { endpoint: remote, end } = decodeEndpoint(body, 0);
  if (remote.port === 0) throw malformed('udp frame for port 0');
  const rest = body.subarray(end);
  if (type === FRAME_TYPES.undelivered) return { type: 'undelivered', remote, status: readStatus(rest) };
  if (rest.length > DATAGRAM_MAX_BYTES) throw malformed(`datagram of ${rest.length} bytes`);
  return { type: 'datagram', remote, payload: rest };
}

/** Why; `ok` is no reason, and there is no address to index. */
function readStatus(bytes: Buffer): ReplyStatus {
  const { status, addressIndex } = decodeReply(bytes.subarray(0, REPLY_BYTES + 1));
  if (status === 'ok' || addressIndex !== 0) throw malformed(`udp frame with status ${status}`);
  return status;
}

function malformed(detail: string): PosternError {
  return new PosternError('ERR_WIRE_MALFORMED', detail);
}
