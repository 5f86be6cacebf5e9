import type { Committer } from './flush.ts';
import type { Health } from './health.ts';
import type { VolumeIndex } from './index/volume-index.ts';
import { BLOCK_BYTES, TRIMS_MAX, type VolumeLimits } from './limits.ts';
import type { Memory } from './memory.ts';
import type { BlockReader } from './reader.ts';

/** Holes that one layer takes before it is committed by itself. */
const LAYER_TRIMS = TRIMS_MAX / 2;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

export interface WriterParts {
  readonly memory: Memory;
  readonly index: VolumeIndex;
  readonly reader: BlockReader;
  readonly committer: Committer;
  readonly health: Health;
  readonly limits: VolumeLimits;
  /** Resolves when the checkpoint under way has ended. */
  checkpointSettled(): Promise<void>;
}

/** Puts writes and holes into dirty memory, block by block; waits when memory, or the index's, is full. */
export class BlockWriter {
  readonly #parts: WriterParts;
  /** Blocks whose old content is being fetched for a partial write; `isStale` once somebody else wrote them. */
  readonly #merging = new Map<number, Set<{ isStale: boolean }>>();
  writeCount = 0;

  constructor(parts: WriterParts) {
    this.#parts = parts;
  }

  async write(offset: number, data: Buffer): Promise<void> {
    this.writeCount += 1;
    await this.#admission();
    for (let at = 0; at < data.length; ) {
      const block = Math.floor((offset + at) / BLOCK_BYTES);
      const within = (offset + at) % BLOCK_BYTES;
      const piece = data.subarray(at, at + BLOCK_BYTES - within);
      if (piece.length === BLOCK_BYTES) await this.#put(block, piece);
      else await this.#merge(block, within, piece);
      at += piece.length;
    }
    this.wrote();
  }

  /** Whole blocks become holes; the ends of the range, where they share a block, zeros. */
  async clear(offset: number, length: number): Promise<void> {
    await this.#admission();
    const end = offset + length;
    const first = Math.ceil(offset / BLOCK_BYTES);
    const last = Math.floor(end / BLOCK_BYTES);
    if (first > last) return this.write(offset, ZEROS.subarray(0, length));
    if (offset < first * BLOCK_BYTES)
      await this.write(offset, ZEROS.subarray(0, first * BLOCK_BYTES - offset));
    if (last > first) await this.#trim(first, last);
    if (end > last * BLOCK_BYTES)
      await this.write(last * BLOCK_BYTES, ZEROS.subarray(0, end - last * BLOCK_BYTES));
  }

  async zero(offset: number, length: number): Promise<void> {
    for (let at = 0; at < length; ) {
      const within = (offset + at) % BLOCK_BYTES;
      const piece = Math.min(BLOCK_BYTES - within, length - at);
      await this.write(offset + at, ZEROS.subarray(0, piece));
      at += piece;
    }
  }

  /** After blocks went into memory: an early spill keeps the next flush short. */
  wrote(): void {
    const { memory, committer, limits } = this.#parts;
    if (memory.dirty.bytes >= limits.spillBytes) committer.spill();
  }

  /** Memory is full: sends what is dirty on its way, and resolves when something has arrived. */
  async room(): Promise<void> {
    const { memory, committer, health } = this.#parts;
    health.check();
    if (committer.canSpill) committer.spill();
    await memory.room();
    health.check();
  }

  async #trim(first: number, end: number): Promise<void> {
    const { memory, committer } = this.#parts;
    while (memory.dirty.trims.count >= LAYER_TRIMS) await committer.commit({});
    memory.trim(first, end);
    for (const [block, tokens] of this.#merging) if (block >= first && block < end) spoil(tokens);
    memory.wakeAll();
  }

  async #put(block: number, bytes: Buffer): Promise<void> {
    for (;;) {
      this.#parts.health.check();
      if (this.#store(block, bytes)) return;
      await this.room();
    }
  }

  #store(block: number, bytes: Buffer): boolean {
    const slot = this.#parts.memory.slotFor(block);
    if (slot === undefined) return false;
    slot.set(bytes);
    const tokens = this.#merging.get(block);
    if (tokens !== undefined) spoil(tokens);
    return true;
  }

  /** Part of a block: what the rest of it holds has to be known first. */
  async #merge(block: number, within: number, piece: Buffer): Promise<void> {
    const merged = Buffer.alloc(BLOCK_BYTES);
    for (;;) {
      this.#parts.health.check();
      const found = this.#parts.memory.find(block);
      if (found === undefined) {
        if (await this.#mergeStored(block, within, piece, merged)) return;
        continue;
      }
      if (found === 'hole') merged.fill(0);
      else merged.set(found);
      merged.set(piece, within);
      if (this.#store(block, merged)) return;
      await this.room();
    }
  }

  /** False when it has to be tried again: somebody wrote the block while its old content was on the way, or no room. */
  async #mergeStored(block: number, within: number, piece: Buffer, merged: Buffer): Promise<boolean> {
    const token = { isStale: false };
    const tokens = this.#merging.get(block) ?? new Set();
    this.#merging.set(block, tokens.add(token));
    try {
      await this.#parts.reader.read(block, merged);
      // From here to the store nothing is awaited, so that nobody can come in between.
      if (token.isStale) return false;
      merged.set(piece, within);
      if (this.#store(block, merged)) return true;
    } finally {
      tokens.delete(token);
      if (tokens.size === 0) this.#merging.delete(block);
    }
    await this.room();
    return false;
  }

  /** The index's memory is bounded too: a checkpoint that lags behind holds writes up. */
  async #admission(): Promise<void> {
    const { index, limits, health } = this.#parts;
    health.check();
    while (index.isFolding && index.current.blocks.size > 2 * limits.checkpointBlocks) {
      await this.#parts.checkpointSettled();
      health.check();
    }
  }
}

function spoil(tokens: ReadonlySet<{ isStale: boolean }>): void {
  for (const token of tokens) token.isStale = true;
}
