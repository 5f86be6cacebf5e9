import { COMMAND, COMMAND_FLAG, EXTENT_BYTES, type NbdErrorName, REQUEST_MAGIC } from './constants.ts';
import type { Agreement } from './export.ts';
import { MAX_EXTENTS, MAX_PAYLOAD_BYTES } from './limits.ts';

/** One request's 28 bytes. The cookie stays in two halves: it is only ever copied back. */
export interface Request {
  readonly flags: number;
  readonly type: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** Bytes. Above 2^53 it has lost its low bits, and is out of every range anyway. */
  readonly offset: number;
  readonly length: number;
}

/** Why a request is not carried out: the error of the protocol, and words for a person. */
export interface Refusal {
  readonly error: NbdErrorName;
  readonly text: string;
}

/** Undefined when the magic is wrong: the peer and we have lost each other's place in the stream. */
export function decodeRequest(bytes: Buffer): Request | undefined {
  if (bytes.readUInt32BE(0) !== REQUEST_MAGIC) return undefined;
  return {
    flags: bytes.readUInt16BE(4),
    type: bytes.readUInt16BE(6),
    cookieHigh: bytes.readUInt32BE(8),
    cookieLow: bytes.readUInt32BE(12),
    offset: bytes.readUInt32BE(16) * 0x1_0000_0000 + bytes.readUInt32BE(20),
    length: bytes.readUInt32BE(24),
  };
}

interface Rule {
  readonly name: string;
  readonly flags: number;
  readonly writes?: true;
  /** Carries offset and length; FLUSH leaves them unused. */
  readonly ranged?: true;
  /** Its data, in either direction, has to fit in memory. */
  readonly payload?: true;
}

// FUA is valid with every command once SEND_FUA was said (proto.md, "Command flags"), and means nothing in some.
const FUA = COMMAND_FLAG.FUA;
const RULES: readonly (Rule | undefined)[] = [
  { name: 'READ', flags: FUA | COMMAND_FLAG.DF, ranged: true, payload: true },
  { name: 'WRITE', flags: FUA, writes: true, ranged: true, payload: true },
  { name: 'DISC', flags: 0xffff },
  { name: 'FLUSH', flags: FUA },
  { name: 'TRIM', flags: FUA, writes: true, ranged: true },
  { name: 'CACHE', flags: FUA, ranged: true },
  {
    name: 'WRITE_ZEROES',
    flags: FUA | COMMAND_FLAG.NO_HOLE | COMMAND_FLAG.FAST_ZERO,
    writes: true,
    ranged: true,
  },
  { name: 'BLOCK_STATUS', flags: FUA | COMMAND_FLAG.REQ_ONE, ranged: true },
];

export function commandName(type: number): string {
  return RULES[type]?.name ?? `command ${type}`;
}

/** Undefined when the device may be asked. Pure; the connection lives on either way. */
export function refusalOf(request: Request, agreement: Agreement): Refusal | undefined {
  const { device } = agreement.export;
  const rule = RULES[request.type];
  if (rule === undefined) return invalid(`${commandName(request.type)} is not known`);
  if ((request.flags & ~rule.flags) !== 0) return invalid(`unknown flags on ${rule.name}`);
  if ((request.flags & COMMAND_FLAG.DF) !== 0 && !agreement.structured) {
    return invalid('DF needs structured replies');
  }
  if (request.type === COMMAND.BLOCK_STATUS && !agreement.allocation) {
    return invalid('no context was selected for BLOCK_STATUS');
  }
  if (rule.writes === true && device.readOnly) return { error: 'EPERM', text: 'the export is read-only' };
  if (rule.payload === true && request.length > MAX_PAYLOAD_BYTES) {
    return invalid(`${rule.name} of ${request.length} bytes, more than ${MAX_PAYLOAD_BYTES}`);
  }
  if (rule.ranged === true && request.offset + request.length > device.sizeBytes) {
    const text = `${rule.name} ends after the last of ${device.sizeBytes} bytes`;
    const grows = request.type === COMMAND.WRITE || request.type === COMMAND.WRITE_ZEROES;
    return grows ? { error: 'ENOSPC', text } : invalid(text);
  }
  if (request.type === COMMAND.BLOCK_STATUS && request.length === 0) {
    return invalid('BLOCK_STATUS of nothing');
  }
  return undefined;
}

/** What a request may hold in memory until its reply has left: what the server's budget counts. */
export function heldBytes({ type, flags, length }: Request): number {
  if (type === COMMAND.READ || type === COMMAND.WRITE) return length;
  // Nobody knows before how many extents there are.
  if (type === COMMAND.BLOCK_STATUS && (flags & COMMAND_FLAG.REQ_ONE) === 0)
    return MAX_EXTENTS * EXTENT_BYTES;
  return 0;
}

function invalid(text: string): Refusal {
  return { error: 'EINVAL', text };
}
