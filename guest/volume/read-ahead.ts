import { BLOCK_BYTES, type VolumeLimits } from './limits.ts';
import type { BlockReader } from './reader.ts';

/** Sequential readers that are told apart. */
const STREAMS_MAX = 8;
const FIRST_WINDOW_BYTES = 256 * 1024;

interface Stream {
  /** Where the next read of this stream begins. */
  next: number;
  /** Up to where it was read ahead. */
  fetchedTo: number;
  windowBytes: number;
}

/** Notices reads that follow on from one another and fetches ahead of them, further the longer it goes on. */
export class ReadAhead {
  readonly #reader: BlockReader;
  readonly #limits: VolumeLimits;
  readonly #sizeBytes: () => number;
  #streams: Stream[] = [];

  constructor(reader: BlockReader, limits: VolumeLimits, sizeBytes: () => number) {
    this.#reader = reader;
    this.#limits = limits;
    this.#sizeBytes = sizeBytes;
  }

  /** Told of every read before it is done. */
  note(offset: number, length: number): void {
    const end = offset + length;
    const stream = this.#streams.find(({ next }) => next === offset);
    if (stream === undefined) {
      this.#streams.unshift({ next: end, fetchedTo: end, windowBytes: FIRST_WINDOW_BYTES });
      this.#streams.length = Math.min(this.#streams.length, STREAMS_MAX);
      return;
    }
    stream.next = end;
    const aheadBytes = stream.fetchedTo - end;
    if (aheadBytes > stream.windowBytes / 2) return;
    const from = Math.max(end, stream.fetchedTo);
    const to = Math.min(this.#sizeBytes(), end + stream.windowBytes);
    stream.windowBytes = Math.min(2 * stream.windowBytes, this.#limits.readAheadBytes);
    stream.fetchedTo = Math.max(stream.fetchedTo, to);
    this.fetch(from, to - from);
  }

  /** Fetches into the cache and forgets about it. */
  fetch(offset: number, length: number): void {
    if (length <= 0) return;
    const first = Math.floor(offset / BLOCK_BYTES);
    const end = Math.ceil((offset + length) / BLOCK_BYTES);
    // A read-ahead that fails is no failure: the read itself will meet it, and say so.
    this.#reader.prefetch(first, end - first).catch(() => undefined);
  }
}
