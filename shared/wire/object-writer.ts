import type { Writable } from 'node:stream';
import { DATA_MAX_BYTES, encodeDataHeader, encodeObjectFrame, type ObjectFrame } from './object.ts';

interface Body {
  readonly requestId: number;
  readonly bytes: Buffer;
  offset: number;
  done(result: BodyEnd): void;
}

/** `sent`: the kernel has every byte. `dropped`: cancelled or the stream closed, and some byte may not have gone. */
export type BodyEnd = 'sent' | 'dropped';

/**
 * The sending half of an object stream. Frames go out before bodies; bodies take turns, one DATA frame each, so that
 * a small object never waits for a large one; and only as fast as the stream takes them.
 */
export class ObjectWriter {
  readonly #stream: Writable;
  readonly #frames: { readonly bytes: Buffer; done(): void }[] = [];
  readonly #bodies = new Map<number, Body>();
  #blocked = false;

  constructor(stream: Writable) {
    this.#stream = stream;
    stream.on('drain', () => {
      this.#blocked = false;
      this.#pump();
    });
    stream.once('close', () => this.#dropAll());
  }

  /** Resolves when the frame is with the stream, or the stream is closed. */
  send(frame: ObjectFrame): Promise<void> {
    if (this.#stream.destroyed) return Promise.resolve();
    return new Promise((resolve) => {
      this.#frames.push({ bytes: encodeObjectFrame(frame), done: resolve });
      this.#pump();
    });
  }

  /** One body a request. The bytes are not copied: they stay as they are until this resolves. */
  sendBody(requestId: number, bytes: Buffer): Promise<BodyEnd> {
    if (bytes.length === 0) return Promise.resolve('sent');
    if (this.#stream.destroyed) return Promise.resolve('dropped');
    return new Promise((resolve) => {
      this.#bodies.set(requestId, { requestId, bytes, offset: 0, done: resolve });
      this.#pump();
    });
  }

  /** Some bytes of the request's body are not with the stream yet. */
  hasBody(requestId: number): boolean {
    return this.#bodies.has(requestId);
  }

  /** Stops a body between two frames; nothing happens when all of it is with the stream already. */
  dropBody(requestId: number): void {
    const body = this.#bodies.get(requestId);
    this.#bodies.delete(requestId);
    body?.done('dropped');
  }

  #pump(): void {
    while (!this.#blocked && !this.#stream.destroyed) {
      const frame = this.#frames.shift();
      if (frame !== undefined) {
        this.#blocked = !this.#stream.write(frame.bytes);
        frame.done();
        continue;
      }
      const next = this.#bodies.values().next();
      if (next.done) return;
      this.#writePiece(next.value);
    }
  }

  #writePiece(body: Body): void {
    const { requestId, bytes, offset } = body;
    const piece = bytes.subarray(offset, offset + DATA_MAX_BYTES);
    const isLast = offset + piece.length === bytes.length;
    this.#stream.cork();
    this.#stream.write(encodeDataHeader(requestId, piece.length));
    // A stream that is destroyed calls back with an error.
    const done = isLast ? (error?: Error | null) => body.done(error ? 'dropped' : 'sent') : undefined;
    this.#blocked = !this.#stream.write(piece, done);
    this.#stream.uncork();
    body.offset += piece.length;
    this.#bodies.delete(requestId);
    if (!isLast) this.#bodies.set(requestId, body);
  }

  #dropAll(): void {
    for (const frame of this.#frames.splice(0)) frame.done();
    for (const requestId of [...this.#bodies.keys()]) this.dropBody(requestId);
  }
}
