import { isPosternError } from '../../shared/errors.ts';
import { allocateBody, recycleBody } from '../../shared/objects/bodies.ts';
import type { Checkpointer } from './checkpoint.ts';
import type { VolumeEnvironment } from './environment.ts';
import type { FrameReader, FrameRequest } from './frames.ts';
import type { Health } from './health.ts';
import { parsePageLba } from './index/tree.ts';
import type { VolumeIndex } from './index/volume-index.ts';
import { BLOCK_BYTES } from './limits.ts';
import type { Memory } from './memory.ts';
import { type FrameSpan, location, locationSegment } from './segment.ts';

/** What is read of a sparse segment at a time: one GET for frames that lie side by side, however small they are. */
const READ_BYTES = 1024 * 1024;

/** While somebody uses the volume, repacking rests so many times as long as it works: it can wait, they cannot. */
const REST_FACTOR = 2;
/** After a store that was slow once. */
const REST_MAX_MS = 1000;

export interface RepackerParts {
  readonly index: VolumeIndex;
  readonly memory: Memory;
  readonly frames: FrameReader;
  readonly checkpointer: Checkpointer;
  readonly health: Health;
  readonly environment: VolumeEnvironment;
  /** How often somebody has read or written so far. */
  useCount(): number;
  /** Resolves when there may be room in memory again. */
  room(): Promise<void>;
  /** What is gathered of sparse and small segments before it is written, as one segment where it can be. */
  readonly gatherBytes: number;
  spill(): void;
}

interface LiveBlock {
  readonly block: number;
  readonly place: number;
}

/** Copies of live blocks in one buffer: a view would keep its whole frame, sixteen times as much. */
class Gathered {
  readonly #bytes: Buffer;
  readonly #blocks: LiveBlock[] = [];

  constructor(limitBytes: number) {
    this.#bytes = allocateBody(Math.max(1, Math.floor(limitBytes / BLOCK_BYTES)) * BLOCK_BYTES);
  }

  get isFull(): boolean {
    return this.#blocks.length * BLOCK_BYTES === this.#bytes.length;
  }

  add(live: LiveBlock, bytes: Buffer): void {
    this.#bytes.set(bytes, this.#blocks.length * BLOCK_BYTES);
    this.#blocks.push(live);
  }

  *blocks(): Generator<{ readonly live: LiveBlock; readonly bytes: Buffer }> {
    for (const [index, live] of this.#blocks.entries()) {
      yield { live, bytes: this.#bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES) };
    }
  }

  /** Empties it; says how many blocks there were. */
  clear(): number {
    return this.#blocks.splice(0).length;
  }

  free(): void {
    recycleBody(this.#bytes);
  }
}

/**
 * Empties sparse segments: their live blocks become dirty again, unchanged, and take the way of any write; the next
 * checkpoint finds the segment dead. A block that was written meanwhile is left alone, so nothing can be turned back.
 */
export class Repacker {
  readonly #parts: RepackerParts;
  #running: Promise<void> | undefined;
  #isPaused = false;
  repackedSegments = 0;
  repackedBlocks = 0;

  constructor(parts: RepackerParts) {
    this.#parts = parts;
  }

  /** Writes nothing from when this resolves until `resume`. */
  async pause(): Promise<void> {
    this.#isPaused = true;
    await this.#running;
  }

  resume(): void {
    this.#isPaused = false;
  }

  /** Takes every candidate that the checkpoints found; one run at a time. */
  async run(): Promise<void> {
    if (this.#isPaused) return;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    await this.#running;
  }

  async #run(): Promise<void> {
    const { checkpointer, health } = this.#parts;
    if (checkpointer.candidates.size === 0) return;
    const gathered = new Gathered(this.#parts.gatherBytes);
    try {
      for (const number of checkpointer.candidates) {
        if (health.state !== 'serving' || this.#isPaused) return;
        checkpointer.candidates.delete(number);
        await this.#try(number, () => this.#gather(number, gathered));
      }
      await this.#try(0, () => this.#rewrite(gathered));
    } finally {
      gathered.free();
    }
  }

  /** Repacking only saves space: what cannot be read here fails whoever reads it, and `check` names it. */
  async #try(segment: number, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!isPosternError(error)) throw error;
      const fields = { segment, code: error.code };
      this.#parts.environment.log.warn(fields, 'a segment could not be repacked');
    }
  }

  /** The segment's live blocks, as far as is known by now. */
  async #gather(number: number, gathered: Gathered): Promise<void> {
    const { entry, spans } = await this.#parts.frames.directory(number);
    if (entry.kind === 'index') return this.#movePages(number, spans);
    this.repackedSegments += 1;
    for (let from = 0; from < spans.length; ) {
      const at = from;
      const some = upTo(READ_BYTES, spans, at);
      await this.#giveWay(() => this.#gatherFrames(number, at, some, gathered));
      from += some.length;
    }
  }

  async #giveWay(work: () => Promise<void>): Promise<void> {
    const { environment, useCount } = this.#parts;
    const { clock } = environment;
    const countBefore = useCount();
    const startMs = clock.nowMs();
    await work();
    if (useCount() !== countBefore) {
      await clock.sleep(Math.min(REST_FACTOR * (clock.nowMs() - startMs), REST_MAX_MS));
    }
  }

  async #movePages(number: number, spans: readonly FrameSpan[]): Promise<void> {
    const { index, checkpointer } = this.#parts;
    for (const { lba } of spans) {
      const at = parsePageLba('index', lba);
      if (at === undefined) continue;
      const place = await index.base.index.placeOf(at.level, at.page);
      if (place !== 0 && locationSegment(place) === number) checkpointer.movePage(at.level, at.page);
    }
  }

  async #gatherFrames(
    number: number,
    from: number,
    spans: readonly FrameSpan[],
    gathered: Gathered,
  ): Promise<void> {
    const requests: FrameRequest[] = [];
    const live: {
      readonly block: number;
      readonly place: number;
      readonly request: number;
      readonly at: number;
    }[] = [];
    for (const [index, span] of spans.entries()) {
      const places = await this.#parts.index.places(span.lba, span.blocks);
      const before = live.length;
      for (let at = 0; at < span.blocks; at += 1) {
        const place = location(number, from + index, at);
        if (places[at] === place) live.push({ block: span.lba + at, place, request: requests.length, at });
      }
      if (live.length > before) requests.push({ segment: number, frame: from + index, lba: span.lba });
    }
    const gather = async (frames: readonly Buffer[]): Promise<void> => {
      for (const { block, place, request, at } of live) {
        const bytes = frames[request]?.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES);
        if (bytes === undefined) continue;
        gathered.add({ block, place }, bytes);
        if (gathered.isFull) await this.#rewrite(gathered);
      }
    };
    await this.#parts.frames.use(requests, gather, { keep: false });
  }

  /**
   * Makes what was gathered dirty, all at once where memory allows, and spills it: small segments become one large one even
   * while somebody flushes all the time.
   */
  async #rewrite(gathered: Gathered): Promise<void> {
    try {
      for (const { live, bytes } of gathered.blocks()) {
        for (;;) {
          const outcome = this.#putBack(live, bytes);
          if (outcome === 'done') break;
          if (outcome === 'unknown') await this.#parts.index.places(live.block, 1);
          else await this.#parts.room();
        }
      }
    } finally {
      if (gathered.clear() > 0) this.#parts.spill();
    }
  }

  /** Nothing is awaited between the look and the write: a block that was written meanwhile is left as it is. */
  #putBack({ block, place }: LiveBlock, bytes: Buffer): 'done' | 'unknown' | 'full' {
    const { memory, index, health } = this.#parts;
    health.check();
    if (memory.find(block) !== undefined) return 'done';
    const now = index.placeNow(block);
    if (now === undefined) return 'unknown';
    if (now !== place) return 'done';
    const slot = memory.slotFor(block);
    if (slot === undefined) return 'full';
    slot.set(bytes);
    this.repackedBlocks += 1;
    return 'done';
  }
}

/** Spans from the one at `from` on, at least one, of so many bytes together. */
function upTo(bytes: number, spans: readonly FrameSpan[], from: number): readonly FrameSpan[] {
  let end = from;
  for (let sum = 0; end < spans.length; end += 1) {
    sum += (spans[end]?.blocks ?? 0) * BLOCK_BYTES;
    if (sum > bytes && end > from) break;
  }
  return spans.slice(from, end);
}
