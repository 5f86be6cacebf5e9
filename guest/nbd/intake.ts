/**
 * The bytes of a connection that have arrived and are not understood yet. Chunks are kept as they came: a message
 * inside one chunk is handed out as a view of it, and only one that straddles chunks is copied, once.
 */
export class Intake {
  readonly #chunks: Buffer[] = [];
  /** Bytes of the first chunk that are consumed. */
  #offset = 0;
  #buffered = 0;
  #viewed = false;

  /** What of the chunks pushed so far is still referred to, since the last question. */
  referred(): 'nothing' | 'rest' | 'views' {
    const viewed = this.#viewed;
    this.#viewed = false;
    if (viewed) return 'views';
    return this.#buffered > 0 ? 'rest' : 'nothing';
  }

  get bufferedBytes(): number {
    return this.#buffered;
  }

  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#buffered += chunk.length;
  }

  /** As `take`, for bytes that are kept: their chunk is not written over. */
  takeForGood(count: number): Buffer | undefined {
    const bytes = this.take(count);
    if (bytes !== undefined) this.#viewed = true;
    return bytes;
  }

  /**
   * The next `count` bytes, or undefined (and nothing consumed) while fewer are there. The caller bounds `count`, and
   * has read them before the next chunk comes.
   */
  take(count: number): Buffer | undefined {
    if (count > this.#buffered) return undefined;
    const first = this.#chunks[0];
    if (first === undefined) return Buffer.alloc(0);
    if (first.length - this.#offset >= count) {
      const view = first.subarray(this.#offset, this.#offset + count);
      this.#advance(first, count);
      return view;
    }
    const copy = Buffer.allocUnsafe(count);
    this.takeInto(copy, 0);
    return copy;
  }

  /** Moves what is there into `target` from `start`, until either ends. Answers the bytes moved. */
  takeInto(target: Buffer, start: number): number {
    let at = start;
    while (at < target.length) {
      const first = this.#chunks[0];
      if (first === undefined) break;
      const count = Math.min(first.length - this.#offset, target.length - at);
      first.copy(target, at, this.#offset, this.#offset + count);
      this.#advance(first, count);
      at += count;
    }
    return at - start;
  }

  /** Drops up to `count` bytes. Answers the bytes dropped. */
  skip(count: number): number {
    let left = count;
    while (left > 0) {
      const first = this.#chunks[0];
      if (first === undefined) break;
      const step = Math.min(first.length - this.#offset, left);
      this.#advance(first, step);
      left -= step;
    }
    return count - left;
  }

  #advance(first: Buffer, count: number): void {
    this.#offset += count;
    this.#buffered -= count;
    if (this.#offset < first.length) return;
    this.#chunks.shift();
    this.#offset = 0;
  }
}
