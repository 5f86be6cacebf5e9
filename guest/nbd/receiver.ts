import { Socket, type SocketConstructorOpts } from 'node:net';
import { detachHandle } from '../../shared/flow/pump.ts';
import { RECEIVE_BYTES, RECEIVE_MIN_BYTES } from './limits.ts';

/** Who decides where a stream's bytes go. */
export interface Reader {
  /** The rest of a large payload, which the next bytes belong to; undefined: they are messages. */
  target(): Buffer | undefined;
  /** `count` bytes came into what `target` gave. */
  landed(count: number): void;
  /**
   * Messages came, in memory that is written over unless the answer says what of it is referred to from now on:
   * bytes that wait for more to come, or views for good.
   */
  received(chunk: Buffer): 'nothing' | 'rest' | 'views';
}

/**
 * Takes the stream's handle over into a socket that reads large payloads where they belong (net.Socket's `onread`,
 * which exists only at construction), and small messages into a buffer that is used again unless it is referred to.
 * The returned socket is paused.
 */
export function receiveInto(stream: Socket, reader: Reader): Socket {
  const early = stream.read() as Buffer | null;
  const buffers = new ReceiveBuffers(reader);
  const socket = new Socket({
    handle: detachHandle(stream),
    allowHalfOpen: true,
    manualStart: true,
    onread: {
      buffer: () => buffers.next(),
      callback: (count: number) => buffers.filled(count),
    },
  } as unknown as SocketConstructorOpts);
  if (early !== null) process.nextTick(() => reader.received(early));
  return socket;
}

class ReceiveBuffers {
  readonly #reader: Reader;
  /** What the system reads into now, and whether it is the reader's own. */
  #current: Buffer = Buffer.alloc(0);
  #direct = false;
  #slab: Buffer = Buffer.alloc(0);
  #used = 0;
  /** Views of the slab are out for good: its beginning is never written again. */
  #viewed = false;

  constructor(reader: Reader) {
    this.#reader = reader;
  }

  next(): Buffer {
    const target = this.#reader.target();
    this.#direct = target !== undefined;
    this.#current = target ?? this.#room();
    return this.#current;
  }

  /** True: go on reading, which pausing the socket decides otherwise. */
  filled(count: number): boolean {
    if (this.#direct) {
      this.#reader.landed(count);
      return true;
    }
    this.#used += count;
    const kept = this.#reader.received(this.#current.subarray(0, count));
    if (kept === 'views') this.#viewed = true;
    if (kept === 'nothing' && !this.#viewed) this.#used = 0;
    return true;
  }

  #room(): Buffer {
    if (this.#slab.length - this.#used < RECEIVE_MIN_BYTES) {
      this.#slab = Buffer.allocUnsafeSlow(RECEIVE_BYTES);
      this.#used = 0;
      this.#viewed = false;
    }
    return this.#slab.subarray(this.#used);
  }
}
