import { PosternError } from '../errors.ts';
import {
  decodeObjectPayload,
  OBJECT_FRAME_TYPES,
  OBJECT_HEADER_BYTES,
  OBJECT_PAYLOAD_BYTES,
  type ObjectFrame,
  type ObjectFrameType,
} from './object.ts';

const TYPE_NAMES = new Map<number, ObjectFrameType>(
  Object.entries(OBJECT_FRAME_TYPES).map(([name, value]) => [value, name as ObjectFrameType]),
);
/** The longest frame that is kept until it is whole; DATA never is. */
const KEPT_MAX_BYTES =
  OBJECT_HEADER_BYTES +
  Math.max(...Object.entries(OBJECT_PAYLOAD_BYTES).map(([type, [, most]]) => (type === 'data' ? 0 : most)));

export interface ObjectFrameSink {
  frame(frame: ObjectFrame): void;
  /** Some of the bytes of a DATA frame, at least one; valid only during the call. */
  data(requestId: number, piece: Buffer): void;
}

/**
 * Cuts a stream into frames, whatever pieces it comes in. Bytes of DATA go through uncopied; of anything else it keeps
 * at most one frame, in one buffer of fixed size.
 */
export class ObjectFrameDecoder {
  readonly #sink: ObjectFrameSink;
  readonly #kept = Buffer.alloc(KEPT_MAX_BYTES);
  #keptLength = 0;
  /** Of the DATA frame that is passing through. */
  #dataId = 0;
  #dataLeft = 0;

  constructor(sink: ObjectFrameSink) {
    this.#sink = sink;
  }

  /** True between two frames: the stream may end here. */
  get isBetweenFrames(): boolean {
    return this.#keptLength === 0 && this.#dataLeft === 0;
  }

  /** @throws PosternError ERR_WIRE_MALFORMED, ERR_WIRE_TOO_LARGE; the stream is of no use after that. */
  push(piece: Buffer): void {
    let offset = 0;
    while (offset < piece.length) {
      if (this.#dataLeft > 0) {
        const end = Math.min(piece.length, offset + this.#dataLeft);
        this.#dataLeft -= end - offset;
        this.#sink.data(this.#dataId, piece.subarray(offset, end));
        offset = end;
        continue;
      }
      const wanted = this.#keptLength < OBJECT_HEADER_BYTES ? OBJECT_HEADER_BYTES : this.#frameBytes();
      const end = Math.min(piece.length, offset + wanted - this.#keptLength);
      piece.copy(this.#kept, this.#keptLength, offset, end);
      this.#keptLength += end - offset;
      offset = end;
      if (this.#keptLength >= OBJECT_HEADER_BYTES && this.#keptLength === this.#frameBytes()) this.#finish();
    }
  }

  /** Header and payload of the frame that is being kept; of DATA the header alone. */
  #frameBytes(): number {
    const type = this.#type();
    const length = this.#kept.readUInt32BE(8);
    const [least, most] = OBJECT_PAYLOAD_BYTES[type];
    if (length > most) {
      throw new PosternError('ERR_WIRE_TOO_LARGE', `object stream: ${type} of ${length} bytes, over ${most}`);
    }
    if (length < least || this.#kept.readUIntBE(1, 3) !== 0) {
      throw new PosternError('ERR_WIRE_MALFORMED', `object stream: ${type} of ${length} bytes`);
    }
    return OBJECT_HEADER_BYTES + (type === 'data' ? 0 : length);
  }

  #type(): ObjectFrameType {
    const value = this.#kept.readUInt8(0);
    const type = TYPE_NAMES.get(value);
    if (type === undefined)
      throw new PosternError('ERR_WIRE_MALFORMED', `object stream: frame type ${value}`);
    return type;
  }

  #finish(): void {
    const type = this.#type();
    const requestId = this.#kept.readUInt32BE(4);
    const payload = this.#kept.subarray(OBJECT_HEADER_BYTES, this.#keptLength);
    this.#keptLength = 0;
    if (type === 'data') {
      this.#dataId = requestId;
      this.#dataLeft = this.#kept.readUInt32BE(8);
    } else {
      const ofStream = type === 'hello' || type === 'welcome' || type === 'bye';
      if (ofStream !== (requestId === 0)) {
        throw new PosternError('ERR_WIRE_MALFORMED', `object stream: ${type} with request id ${requestId}`);
      }
      this.#sink.frame(decodeObjectPayload(type, requestId, payload));
    }
  }
}
