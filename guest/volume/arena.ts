import { BLOCK_BYTES } from './limits.ts';

/** Slots that are made at a time: 1 MiB, so that an idle volume takes little. */
const CHUNK_SLOTS = 256;

/** The volume's dirty memory: a fixed number of block-sized slots, so that it is bounded and never collected. */
export class Arena {
  readonly slotCount: number;
  readonly #chunks: Buffer[] = [];
  readonly #free: number[] = [];
  #made = 0;

  constructor(limitBytes: number) {
    this.slotCount = Math.floor(limitBytes / BLOCK_BYTES);
  }

  get usedCount(): number {
    return this.#made - this.#free.length;
  }

  get freeCount(): number {
    return this.slotCount - this.usedCount;
  }

  /** A slot with whatever was in it before; undefined when all are taken. */
  take(): number | undefined {
    const slot = this.#free.pop();
    if (slot !== undefined) return slot;
    if (this.#made >= this.slotCount) return undefined;
    if (this.#made % CHUNK_SLOTS === 0) {
      const slots = Math.min(CHUNK_SLOTS, this.slotCount - this.#made);
      this.#chunks.push(Buffer.allocUnsafeSlow(slots * BLOCK_BYTES));
    }
    this.#made += 1;
    return this.#made - 1;
  }

  release(slot: number): void {
    this.#free.push(slot);
  }

  /** The slot's bytes, valid until it is released. */
  bytes(slot: number): Buffer {
    const chunk = this.#chunks[Math.floor(slot / CHUNK_SLOTS)];
    if (chunk === undefined) throw new RangeError(`slot ${slot} was never taken`);
    const at = (slot % CHUNK_SLOTS) * BLOCK_BYTES;
    return chunk.subarray(at, at + BLOCK_BYTES);
  }
}
