import type { BlockDevice, BlockExtent } from '../../../guest/nbd/device.ts';

const PAGE_BYTES = 64 * 1024;
/** Small reads are cut from slabs: an ArrayBuffer of its own costs more than a 4 KiB copy. */
const SLAB_BYTES = 1024 * 1024;

interface Page {
  readonly data: Buffer;
  /** Allocated, and known to hold zeros. */
  zero: boolean;
}

/** A sparse block device in memory: the real thing, less durability. Counts what tests ask about. */
export class MemoryDevice implements BlockDevice {
  sizeBytes: number;
  readonly preferredBlockBytes: number;
  readonly readOnly: boolean;
  flushes = 0;
  fuas = 0;
  cached: (readonly [offset: number, length: number])[] = [];
  readonly #pages = new Map<number, Page>();
  #slab = Buffer.alloc(0);
  #slabUsed = 0;

  constructor(sizeBytes: number, options: { readOnly?: boolean; preferredBlockBytes?: number } = {}) {
    this.sizeBytes = sizeBytes;
    this.readOnly = options.readOnly ?? false;
    this.preferredBlockBytes = options.preferredBlockBytes ?? 4096;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const target = this.#allocate(length);
    for (const [index, start, count, at] of spans(offset, length)) {
      const page = this.#pages.get(index);
      if (page === undefined) target.fill(0, at, at + count);
      else page.data.copy(target, at, start, start + count);
    }
    return target;
  }

  async write(offset: number, data: Buffer, { fua }: { readonly fua: boolean }): Promise<void> {
    if (fua) this.fuas += 1;
    for (const [index, start, count, at] of spans(offset, data.length)) {
      const page = this.#page(index);
      page.zero = false;
      data.copy(page.data, start, at, at + count);
    }
  }

  async flush(): Promise<void> {
    this.flushes += 1;
  }

  async trim(offset: number, length: number, { fua }: { readonly fua: boolean }): Promise<void> {
    if (fua) this.fuas += 1;
    for (const [index, start, count] of spans(offset, length)) {
      if (count === PAGE_BYTES) this.#pages.delete(index);
      else this.#pages.get(index)?.data.fill(0, start, start + count);
    }
  }

  async writeZeroes(
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly noHole: boolean },
  ): Promise<void> {
    await this.trim(offset, length, options);
    if (!options.noHole) return;
    for (const [index] of spans(offset, length)) this.#page(index);
  }

  async blockStatus(offset: number, length: number): Promise<readonly BlockExtent[]> {
    const extents: BlockExtent[] = [];
    for (const [index, , count] of spans(offset, length)) {
      const page = this.#pages.get(index);
      extents.push({ length: count, hole: page === undefined, zero: page?.zero ?? true });
    }
    return extents;
  }

  async cache(offset: number, length: number): Promise<void> {
    this.cached.push([offset, length]);
  }

  #page(index: number): Page {
    const found = this.#pages.get(index);
    if (found !== undefined) return found;
    const page = { data: Buffer.alloc(PAGE_BYTES), zero: true };
    this.#pages.set(index, page);
    return page;
  }

  #allocate(length: number): Buffer {
    if (length >= PAGE_BYTES) return Buffer.allocUnsafeSlow(length);
    if (this.#slabUsed + length > this.#slab.length) {
      this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
      this.#slabUsed = 0;
    }
    this.#slabUsed += length;
    return this.#slab.subarray(this.#slabUsed - length, this.#slabUsed);
  }
}

/** The pages that a range touches: index, first byte within it, bytes, and where they are in the range. */
function* spans(offset: number, length: number): Generator<readonly [number, number, number, number]> {
  let at = 0;
  while (at < length) {
    const index = Math.floor((offset + at) / PAGE_BYTES);
    const start = offset + at - index * PAGE_BYTES;
    const count = Math.min(PAGE_BYTES - start, length - at);
    yield [index, start, count, at];
    at += count;
  }
}
