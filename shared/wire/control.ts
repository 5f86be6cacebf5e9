import { PosternError } from '../errors.ts';
import { KEY_BYTES } from './header.ts';

/** See control.md. Versions of the session protocol that this side speaks. */
export const PROTOCOL_MIN = 1;
export const PROTOCOL_MAX = 1;
export const FRAME_HEADER_BYTES = 4;
/** No frame of version 1 takes more than 16 bytes; unknown types up to this length are skipped. */
export const FRAME_MAX_BYTES = 1024;
const AGENT_MAX_BYTES = 64;
const HELLO_FIXED_BYTES = 8 + KEY_BYTES;

/** Bits of the capability words in HELLO and WELCOME; an unknown bit is ignored. */
export const CAPABILITIES = { tcp: 1, inbound: 2, udp: 4, icmp: 8, objects: 16 } as const;

/** The body of the control stream's header: guest to parent. */
export interface Hello {
  readonly minVersion: number;
  readonly maxVersion: number;
  readonly capabilities: number;
  /** The per-boot session key, KEY_BYTES. */
  readonly key: Buffer;
  /** Program and version, for the parent's log; up to 64 bytes of printable ASCII. */
  readonly agent: string;
}

export type ControlFrame =
  | {
      readonly type: 'welcome';
      readonly version: number;
      readonly capabilities: number;
      readonly keepAliveMs: number;
    }
  | { readonly type: 'ping'; readonly token: number }
  | { readonly type: 'pong'; readonly token: number }
  /** The flow ended by a reset on the sender's side; its receiver ends it the same way. */
  | { readonly type: 'reset'; readonly flowId: number }
  /** The sender drains: it takes no new flows, and ends those that live after `deadlineMs`. */
  | { readonly type: 'goaway'; readonly deadlineMs: number };

const FRAME_TYPES = { welcome: 1, ping: 2, pong: 3, reset: 4, goaway: 5 } as const;

/** `min u8 | max u8 | agentLength u16 | capabilities u32 | key 32 | agent`. */
export function encodeHello(hello: Hello): Buffer {
  const agent = Buffer.from(hello.agent.slice(0, AGENT_MAX_BYTES), 'latin1');
  const bytes = Buffer.alloc(HELLO_FIXED_BYTES + agent.length);
  bytes.writeUInt8(hello.minVersion, 0);
  bytes.writeUInt8(hello.maxVersion, 1);
  bytes.writeUInt16BE(agent.length, 2);
  bytes.writeUInt32BE(hello.capabilities, 4);
  hello.key.copy(bytes, 8, 0, KEY_BYTES);
  agent.copy(bytes, HELLO_FIXED_BYTES);
  return bytes;
}

/** @throws PosternError ERR_WIRE_MALFORMED */
export function decodeHello(body: Buffer): Hello {
  const agentLength = body.length >= HELLO_FIXED_BYTES ? body.readUInt16BE(2) : -1;
  if (agentLength < 0 || agentLength > AGENT_MAX_BYTES || body.length !== HELLO_FIXED_BYTES + agentLength) {
    throw new PosternError('ERR_WIRE_MALFORMED', `HELLO of ${body.length} bytes`);
  }
  const agent = body.toString('latin1', HELLO_FIXED_BYTES);
  if (!/^[\x20-\x7e]*$/.test(agent))
    throw new PosternError('ERR_WIRE_MALFORMED', 'HELLO with an unprintable agent');
  return {
    minVersion: body.readUInt8(0),
    maxVersion: body.readUInt8(1),
    capabilities: body.readUInt32BE(4),
    key: Buffer.from(body.subarray(8, HELLO_FIXED_BYTES)),
    agent,
  };
}

/**
 * The highest version both sides speak.
 * @throws PosternError ERR_WIRE_VERSION
 */
export function negotiateVersion(hello: Pick<Hello, 'minVersion' | 'maxVersion'>): number {
  const version = Math.min(hello.maxVersion, PROTOCOL_MAX);
  if (version < hello.minVersion || version < PROTOCOL_MIN) {
    const theirs = `${hello.minVersion} to ${hello.maxVersion}`;
    throw new PosternError(
      'ERR_WIRE_VERSION',
      `peer speaks ${theirs}, this side ${PROTOCOL_MIN} to ${PROTOCOL_MAX}`,
    );
  }
  return version;
}

/** `type u8 | 0 | length u16 | payload`. */
export function encodeFrame(frame: ControlFrame): Buffer {
  const payload = encodePayload(frame);
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
  bytes.writeUInt8(FRAME_TYPES[frame.type], 0);
  bytes.writeUInt16BE(payload.length, 2);
  payload.copy(bytes, FRAME_HEADER_BYTES);
  return bytes;
}

function encodePayload(frame: ControlFrame): Buffer {
  if (frame.type === 'welcome') {
    const payload = Buffer.alloc(12);
    payload.writeUInt8(frame.version, 0);
    payload.writeUInt32BE(frame.capabilities, 4);
    payload.writeUInt32BE(frame.keepAliveMs, 8);
    return payload;
  }
  if (frame.type === 'goaway') {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(frame.deadlineMs, 0);
    return payload;
  }
  const payload = Buffer.alloc(8);
  payload.writeBigUInt64BE(BigInt(frame.type === 'reset' ? frame.flowId : frame.token), 0);
  return payload;
}

/**
 * Cuts frames out of whatever pieces the stream comes in. It never keeps more than one frame of FRAME_MAX_BYTES.
 */
export class FrameDecoder {
  #pending: Buffer = Buffer.alloc(0);

  /**
   * The frames that end in this piece; frames of unknown type are skipped, so that later versions may add some.
   * @throws PosternError ERR_WIRE_TOO_LARGE, ERR_WIRE_MALFORMED; the stream is of no use after that.
   */
  push(piece: Buffer): ControlFrame[] {
    const bytes = this.#pending.length === 0 ? piece : Buffer.concat([this.#pending, piece]);
    const frames: ControlFrame[] = [];
    let offset = 0;
    while (bytes.length - offset >= FRAME_HEADER_BYTES) {
      const length = bytes.readUInt16BE(offset + 2);
      if (length > FRAME_MAX_BYTES) {
        throw new PosternError(
          'ERR_WIRE_TOO_LARGE',
          `control frame of ${length} bytes, over ${FRAME_MAX_BYTES}`,
        );
      }
      const start = offset + FRAME_HEADER_BYTES;
      if (bytes.length < start + length) break;
      const frame = decodeFrame(bytes.readUInt8(offset), bytes.subarray(start, start + length));
      if (frame !== undefined) frames.push(frame);
      offset = start + length;
    }
    this.#pending = Buffer.from(bytes.subarray(offset));
    return frames;
  }
}

function decodeFrame(type: number, payload: Buffer): ControlFrame | undefined {
  switch (type) {
    case FRAME_TYPES.welcome:
      expectLength(payload, 12);
      return {
        type: 'welcome',
        version: payload.readUInt8(0),
        capabilities: payload.readUInt32BE(4),
        keepAliveMs: payload.readUInt32BE(8),
      };
    case FRAME_TYPES.ping:
      return { type: 'ping', token: readU53(payload) };
    case FRAME_TYPES.pong:
      return { type: 'pong', token: readU53(payload) };
    case FRAME_TYPES.reset:
      return { type: 'reset', flowId: readU53(payload) };
    case FRAME_TYPES.goaway:
      expectLength(payload, 4);
      return { type: 'goaway', deadlineMs: payload.readUInt32BE(0) };
    default:
      return undefined;
  }
}

function readU53(payload: Buffer): number {
  expectLength(payload, 8);
  const value = Number(payload.readBigUInt64BE(0));
  if (!Number.isSafeInteger(value)) throw new PosternError('ERR_WIRE_MALFORMED', 'number over 2^53 - 1');
  return value;
}

function expectLength(payload: Buffer, length: number): void {
  if (payload.length !== length) {
    throw new PosternError(
      'ERR_WIRE_MALFORMED',
      `control frame of ${payload.length} bytes, expected ${length}`,
    );
  }
}
