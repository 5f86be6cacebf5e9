import { isPosternError } from '../../shared/errors.ts';
import type { FrameReader, FrameRequest } from './frames.ts';
import type { VolumeIndex } from './index/volume-index.ts';
import { BLOCK_BYTES } from './limits.ts';
import type { Memory } from './memory.ts';
import { locationBlock, locationFrame, locationSegment } from './segment.ts';

/** Blocks that are located and fetched together: what one read keeps of the store in memory at a time. */
const WINDOW_BLOCKS = 1024;
/** How often a read that met a freed segment looks again where the blocks went. */
const MOVED_ATTEMPTS = 4;

/** Reads blocks from wherever they are: memory, cache, store. */
export class BlockReader {
  readonly #memory: Memory;
  readonly #index: VolumeIndex;
  readonly #frames: FrameReader;
  readCount = 0;

  constructor(memory: Memory, index: VolumeIndex, frames: FrameReader) {
    this.#memory = memory;
    this.#index = index;
    this.#frames = frames;
  }

  /** Fills `target`, a whole number of blocks. @throws ERR_VOLUME_CORRUPT, _MISSING, _UNAVAILABLE */
  async read(first: number, target: Buffer): Promise<void> {
    this.readCount += 1;
    const count = target.length / BLOCK_BYTES;
    for (let at = 0; at < count; at += WINDOW_BLOCKS) {
      const end = Math.min(count, at + WINDOW_BLOCKS);
      await this.#readWindow(first + at, target.subarray(at * BLOCK_BYTES, end * BLOCK_BYTES));
    }
  }

  /** Fetches frames into the cache; an error waits for whoever reads them. */
  async prefetch(first: number, count: number): Promise<void> {
    const places = await this.#index.places(first, count);
    const { requests } = requestsFor(first, places, () => false);
    await this.#frames.use(requests, () => undefined);
  }

  async #readWindow(first: number, target: Buffer): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#readOnce(first, target);
      } catch (error) {
        // Between looking up and fetching, GC may have moved the block and deleted the old object.
        if (!isPosternError(error, 'ERR_VOLUME_MISSING') || attempt === MOVED_ATTEMPTS) throw error;
      }
    }
  }

  async #readOnce(first: number, target: Buffer): Promise<void> {
    const count = target.length / BLOCK_BYTES;
    const inMemory = new Uint8Array(count);
    let left = count;
    for (let at = 0; at < count; at += 1) {
      const found = this.#memory.find(first + at);
      if (found === undefined) continue;
      inMemory[at] = 1;
      left -= 1;
      const slot = target.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES);
      if (found === 'hole') slot.fill(0);
      else slot.set(found);
    }
    if (left === 0) return;
    const places = await this.#index.places(first, count);
    const { requests, frameOf } = requestsFor(first, places, (at) => inMemory[at] === 1);
    await this.#frames.use(requests, (frames) => {
      for (let at = 0; at < count; at += 1) {
        if (inMemory[at] === 1) continue;
        const slot = target.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES);
        const frame = frames[frameOf[at] ?? -1];
        if (frame === undefined) {
          slot.fill(0);
        } else {
          const from = locationBlock(places[at] ?? 0) * BLOCK_BYTES;
          slot.set(frame.subarray(from, from + BLOCK_BYTES));
        }
      }
    });
  }
}

/** Each frame once; `frameOf[i]`: which request holds block `first + i`, or -1. */
function requestsFor(
  first: number,
  places: Float64Array,
  skip: (at: number) => boolean,
): { readonly requests: FrameRequest[]; readonly frameOf: Int32Array } {
  const requests: FrameRequest[] = [];
  const known = new Map<number, number>();
  const frameOf = new Int32Array(places.length).fill(-1);
  for (const [at, place] of places.entries()) {
    if (place === 0 || skip(at)) continue;
    const key = Math.floor(place / 16);
    let request = known.get(key);
    if (request === undefined) {
      request = requests.length;
      known.set(key, request);
      const lba = first + at - locationBlock(place);
      requests.push({ segment: locationSegment(place), frame: locationFrame(place), lba });
    }
    frameOf[at] = request;
  }
  return { requests, frameOf };
}
