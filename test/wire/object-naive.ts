import { isPosternError } from '../../shared/errors.ts';
import { decodeObjectPayload, type ObjectFrame, type ObjectFrameType } from '../../shared/wire/object.ts';
import { ObjectFrameDecoder } from '../../shared/wire/object-decoder.ts';

/** What a stream says; neighbouring DATA of one request is one entry, whole or not. */
export interface Reading {
  readonly frames: (ObjectFrame | { type: 'data'; requestId: number; bytes: string })[];
  readonly failed: boolean;
}

const TYPES: readonly (readonly [ObjectFrameType, least: number, most: number] | undefined)[] = [
  undefined,
  ['hello', 8, 8],
  ['welcome', 8, 8],
  ['request', 12, 1036],
  ['grant', 0, 0],
  ['reply', 8, 208],
  ['data', 1, 65_536],
  ['cancel', 0, 0],
  ['bye', 4, 204],
];

/** Reads everything at once, by the letter of object.md, without a thought for memory. */
export function readNaively(bytes: Buffer): Reading {
  const frames: Reading['frames'] = [];
  let rest = bytes;
  while (rest.length >= 12) {
    const [type, least, most] = TYPES[rest.readUInt8(0)] ?? [];
    const requestId = rest.readUInt32BE(4);
    const length = rest.readUInt32BE(8);
    if (type === undefined || length < (least ?? 0) || length > (most ?? 0)) return { frames, failed: true };
    if (rest.readUIntBE(1, 3) !== 0) return { frames, failed: true };
    const payload = rest.subarray(12, 12 + length);
    if (type === 'data') {
      if (payload.length > 0) addData(frames, requestId, payload);
    } else {
      if (payload.length < length) break;
      if (['hello', 'welcome', 'bye'].includes(type) !== (requestId === 0)) return { frames, failed: true };
      try {
        frames.push(decodeObjectPayload(type, requestId, payload));
      } catch (error) {
        if (!isPosternError(error, 'ERR_WIRE_MALFORMED')) throw error;
        return { frames, failed: true };
      }
    }
    rest = rest.subarray(12 + length);
  }
  return { frames, failed: false };
}

/** The same through the decoder, in the given pieces. */
export function readStreamed(pieces: Iterable<Buffer>): Reading {
  const frames: Reading['frames'] = [];
  const decoder = new ObjectFrameDecoder({
    frame: (frame) => frames.push(frame),
    data: (requestId, piece) => addData(frames, requestId, piece),
  });
  try {
    for (const piece of pieces) decoder.push(piece);
  } catch (error) {
    if (!isPosternError(error)) throw error;
    return { frames, failed: true };
  }
  return { frames, failed: false };
}

function addData(frames: Reading['frames'], requestId: number, piece: Buffer): void {
  const last = frames.at(-1);
  if (last?.type === 'data' && last.requestId === requestId) last.bytes += piece.toString('hex');
  else frames.push({ type: 'data', requestId, bytes: piece.toString('hex') });
}
