import { isPosternError } from '../../shared/errors.ts';
import type { Checkpointer } from './checkpoint.ts';
import type { VolumeEnvironment } from './environment.ts';
import type { FrameReader, FrameRequest } from './frames.ts';
import type { Health } from './health.ts';
import { parsePageLba } from './index/tree.ts';
import type { VolumeIndex } from './index/volume-index.ts';
import { BLOCK_BYTES } from './limits.ts';
import type { Memory } from './memory.ts';
import { type FrameSpan, location, locationSegment } from './segment.ts';

/** Frames of a sparse segment that are read at a time. */
const FRAMES_AT_ONCE = 64;

export interface RepackerParts {
  readonly index: VolumeIndex;
  readonly memory: Memory;
  readonly frames: FrameReader;
  readonly checkpointer: Checkpointer;
  readonly health: Health;
  readonly environment: VolumeEnvironment;
  /** Resolves when there may be room in memory again. */
  room(): Promise<void>;
  /** Told when blocks were put back into memory, as after any write. */
  wrote(): void;
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
    for (const number of checkpointer.candidates) {
      if (health.state !== 'serving' || this.#isPaused) return;
      checkpointer.candidates.delete(number);
      try {
        await this.#repack(number);
      } catch (error) {
        // Repacking only saves space: what cannot be read here fails whoever reads it, and `check` names it.
        if (!isPosternError(error)) throw error;
        this.#parts.environment.log.warn(
          { segment: number, code: error.code },
          'a segment could not be repacked',
        );
      }
    }
  }

  async #repack(number: number): Promise<void> {
    const { entry, spans } = await this.#parts.frames.directory(number);
    if (entry.kind === 'index') return this.#movePages(number, spans);
    this.repackedSegments += 1;
    for (let from = 0; from < spans.length; from += FRAMES_AT_ONCE) {
      await this.#repackFrames(number, from, spans.slice(from, from + FRAMES_AT_ONCE));
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

  async #repackFrames(number: number, from: number, spans: readonly FrameSpan[]): Promise<void> {
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
    const frames = await this.#parts.frames.read(requests);
    for (const { block, place, request, at } of live) {
      const bytes = frames[request]?.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES);
      if (bytes !== undefined) await this.#rewrite(block, place, bytes);
    }
  }

  async #rewrite(block: number, place: number, bytes: Buffer): Promise<void> {
    const { memory, index } = this.#parts;
    for (;;) {
      this.#parts.health.check();
      if (memory.find(block) !== undefined) return;
      const now = index.placeNow(block);
      if (now === undefined) {
        await index.places(block, 1);
        continue;
      }
      if (now !== place) return;
      const slot = memory.slotFor(block);
      if (slot === undefined) {
        await this.#parts.room();
        continue;
      }
      slot.set(bytes);
      this.repackedBlocks += 1;
      this.#parts.wrote();
      return;
    }
  }
}
