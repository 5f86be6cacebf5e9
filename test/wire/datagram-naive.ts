import ipaddr from 'ipaddr.js';
import { isPosternError } from '../../shared/errors.ts';
import { type UdpFrame, UdpFrameDecoder } from '../../shared/wire/datagram.ts';
import { REPLY_STATUSES } from '../../shared/wire/reply.ts';

/** Frames as text, and whether the stream was found to be broken behind them. */
export interface Reading {
  readonly frames: readonly string[];
  readonly failed: boolean;
}

const STATUS_VALUES = [0, 1, 2, 3, 4, 5, 16, 17, 18, 19, 20, 21];

/** Reads everything at once, by the letter of datagram.md, without a thought for memory. */
export function readNaively(bytes: Buffer): Reading {
  const frames: string[] = [];
  let rest = bytes;
  while (rest.length >= 4) {
    const [type, zero] = rest;
    const length = rest.readUInt16BE(2);
    if (zero !== 0 || length > 65_526) return { frames, failed: true };
    if (rest.length < 4 + length) break;
    const body = rest.subarray(4, 4 + length);
    const text = type === 1 || type === 2 || type === 3 ? frameText(type, body) : '';
    if (text === undefined) return { frames, failed: true };
    if (text !== '') frames.push(text);
    rest = rest.subarray(4 + length);
  }
  return { frames, failed: false };
}

function frameText(type: 1 | 2 | 3, body: Buffer): string | undefined {
  if (type === 3) return statusText('close', body);
  const size = body[0] === 4 ? 4 : body[0] === 6 ? 16 : undefined;
  if (size === undefined || body.length < size + 3) return undefined;
  const address = ipaddr.fromByteArray([...body.subarray(1, 1 + size)]).toString();
  const port = body.readUInt16BE(1 + size);
  const behind = body.subarray(size + 3);
  if (port === 0) return undefined;
  if (type === 2) return statusText(`undelivered ${address} ${port}`, behind);
  return behind.length > 65_507 ? undefined : `datagram ${address} ${port} ${behind.toString('hex')}`;
}

function statusText(what: string, bytes: Buffer): string | undefined {
  if (bytes.length !== 4 || bytes[0] !== 0x52 || bytes[1] === 0 || bytes[2] !== 0 || bytes[3] !== 0)
    return undefined;
  const at = STATUS_VALUES.indexOf(bytes[1] ?? 0);
  return at < 0 ? undefined : `${what} ${REPLY_STATUSES[at]}`;
}

/** The same through the decoder, in the given pieces. Frames before a bad one in its piece are lost with it. */
export function readStreamed(pieces: Iterable<Buffer>): Reading {
  const decoder = new UdpFrameDecoder();
  const frames: string[] = [];
  try {
    for (const piece of pieces) frames.push(...decoder.push(piece).map(textOf));
  } catch (error) {
    if (!isPosternError(error)) throw error;
    return { frames, failed: true };
  }
  return { frames, failed: false };
}

function textOf(frame: UdpFrame): string {
  if (frame.type === 'close') return `close ${frame.status}`;
  const { address, port } = frame.remote;
  const rest = frame.type === 'datagram' ? frame.payload.toString('hex') : frame.status;
  return `${frame.type} ${address} ${port} ${rest}`;
}
