import { Arena } from './arena.ts';
import { deleteRange, hasKeyWithin, IntervalSet } from './intervals.ts';
import { BLOCK_BYTES } from './limits.ts';

/** Blocks and holes that were written together: what one batch carries to the store. */
export class Layer {
  /** Block number to arena slot; stands above `trims`. */
  readonly blocks = new Map<number, number>();
  readonly trims = new IntervalSet();

  get isEmpty(): boolean {
    return this.blocks.size === 0 && this.trims.count === 0;
  }

  get bytes(): number {
    return this.blocks.size * BLOCK_BYTES;
  }
}

/**
 * What memory says at one moment, for who asks the index after it: a layer that reaches the index meanwhile, and leaves memory,
 * is still in the view. The other way round such a layer would be in neither.
 */
export class MemoryView {
  readonly #layers: readonly Layer[];

  /** Newest first. */
  constructor(layers: readonly Layer[]) {
    this.#layers = layers;
  }

  find(block: number): 'data' | 'hole' | undefined {
    for (const layer of this.#layers) {
      const found = findIn(layer, block);
      if (found !== undefined) return found === 'hole' ? found : 'data';
    }
    return undefined;
  }

  /** True when some layer has something to say of the range. */
  touches(start: number, end: number): boolean {
    return this.#layers.some((layer) => layerTouches(layer, start, end));
  }
}

/**
 * What is not in the store yet: the layer that takes writes, and above the store the frozen ones, oldest first, each
 * until its batch has settled.
 */
export class Memory {
  readonly #arena: Arena;
  #dirty = new Layer();
  #frozen: Layer[] = [];
  #waiting: (() => void)[] = [];

  constructor(limitBytes: number) {
    this.#arena = new Arena(limitBytes);
  }

  get dirty(): Layer {
    return this.#dirty;
  }

  get usedBytes(): number {
    return this.#arena.usedCount * BLOCK_BYTES;
  }

  get freeBytes(): number {
    return this.#arena.freeCount * BLOCK_BYTES;
  }

  /** The block's newest bytes in memory, `hole`, or undefined: ask the index. */
  find(block: number): Buffer | 'hole' | undefined {
    const found = findIn(this.#dirty, block);
    if (found !== undefined) return this.#resolve(found);
    for (let index = this.#frozen.length - 1; index >= 0; index -= 1) {
      const layer = this.#frozen[index];
      const older = layer && findIn(layer, block);
      if (older !== undefined) return this.#resolve(older);
    }
    return undefined;
  }

  view(): MemoryView {
    return new MemoryView([this.#dirty, ...this.#frozen.toReversed()]);
  }

  /**
   * The slot to write the block into, the one it has or a fresh one (whose bytes the caller fills at once, all of
   * them); undefined when memory is full.
   */
  slotFor(block: number): Buffer | undefined {
    const known = this.#dirty.blocks.get(block);
    const slot = known ?? this.#arena.take();
    if (slot === undefined) return undefined;
    if (known === undefined) this.#dirty.blocks.set(block, slot);
    return this.#arena.bytes(slot);
  }

  trim(start: number, end: number): void {
    deleteRange(this.#dirty.blocks, start, end, (slot) => this.#arena.release(slot));
    this.#dirty.trims.add(start, end);
  }

  /** Resolves when slots were given back, in order of asking. The caller tries again. */
  room(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Takes the dirty layer for a batch; writes go on in a new one. */
  freeze(): Layer {
    const layer = this.#dirty;
    this.#frozen.push(layer);
    this.#dirty = new Layer();
    return layer;
  }

  /** The oldest frozen layer has reached the index. */
  drop(layer: Layer): void {
    if (this.#frozen[0] !== layer) throw new RangeError('layers settle in order');
    this.#frozen.shift();
    for (const slot of layer.blocks.values()) this.#arena.release(slot);
    this.wakeAll();
  }

  wakeAll(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  bytesOf(slot: number): Buffer {
    return this.#arena.bytes(slot);
  }

  #resolve(found: number | 'hole'): Buffer | 'hole' {
    return found === 'hole' ? found : this.#arena.bytes(found);
  }
}

function findIn(layer: Layer, block: number): number | 'hole' | undefined {
  const slot = layer.blocks.get(block);
  if (slot !== undefined) return slot;
  return layer.trims.count > 0 && layer.trims.has(block) ? 'hole' : undefined;
}

function layerTouches(layer: Layer, start: number, end: number): boolean {
  return layer.trims.overlaps(start, end) || hasKeyWithin(layer.blocks, start, end);
}
