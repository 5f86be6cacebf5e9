import { readU64 } from '../fields.ts';
import type { FrameReader } from '../frames.ts';
import { hasKeyWithin } from '../intervals.ts';
import type { VolumeLimits } from '../limits.ts';
import { BLOCK_BYTES, PAGE_ENTRIES, TABLE_PAGE_ENTRIES } from '../limits.ts';
import { ByteCache } from '../lru.ts';
import type { Checkpoint, DeltaGroup, NumberedSegment } from '../record.ts';
import {
  decodeSegmentEntry,
  locationFrame,
  locationSegment,
  SEGMENT_ENTRY_BYTES,
  type SegmentEntry,
} from '../segment.ts';
import { Overlay } from './overlay.ts';
import { type PagePlace, type PageSource, Tree } from './tree.ts';

/** The roots of a checkpoint, and the table's own segments by number. */
export interface BaseState {
  readonly index: Tree;
  readonly table: Tree;
  readonly tableSegments: ReadonlyMap<number, SegmentEntry>;
}

/**
 * Where every block is: the pages of the last checkpoint, above them what a checkpoint under way folds in, above that
 * what was committed since.
 */
export class VolumeIndex {
  readonly pages: Pages;
  #base: BaseState;
  #folding: Overlay | undefined;
  #current = new Overlay();

  constructor(limits: VolumeLimits, checkpoint: Checkpoint) {
    this.pages = new Pages(limits.pageCacheBytes);
    this.#base = this.baseOf(checkpoint.indexRoot, checkpoint.tableRoot, checkpoint.tableSegments);
  }

  get base(): BaseState {
    return this.#base;
  }

  get current(): Overlay {
    return this.#current;
  }

  get isFolding(): boolean {
    return this.#folding !== undefined;
  }

  baseOf(indexRoot: number, tableRoot: number, tableSegments: readonly NumberedSegment[]): BaseState {
    return {
      index: new Tree('index', indexRoot, this.pages),
      table: new Tree('table', tableRoot, this.pages),
      tableSegments: new Map(tableSegments.map(({ number, entry }) => [number, entry])),
    };
  }

  apply(group: DeltaGroup): void {
    this.#current.apply(group);
  }

  /** Begins a checkpoint: what was committed so far stands still until `settleFold`. */
  beginFold(): Overlay {
    if (this.#folding !== undefined) throw new RangeError('one checkpoint at a time');
    this.#folding = this.#current;
    this.#current = new Overlay();
    return this.#folding;
  }

  /** The checkpoint is committed: its pages stand for what was folded. */
  settleFold(base: BaseState): void {
    this.#base = base;
    this.#folding = undefined;
  }

  /** Places of consecutive blocks, 0 for holes. All as of the moment of the call. */
  async places(first: number, count: number): Promise<Float64Array> {
    const overlays = this.#overlays();
    const { index } = this.#base;
    const places = new Float64Array(count);
    const open: number[] = [];
    for (let at = 0; at < count; at += 1) {
      const place = findIn(overlays, first + at);
      if (place === undefined) open.push(at);
      else places[at] = place;
    }
    let leafNumber = -1;
    let leaf: Buffer | undefined;
    for (const at of open) {
      const block = first + at;
      const number = Math.floor(block / PAGE_ENTRIES);
      if (number !== leafNumber) {
        leaf = await index.leaf(number);
        leafNumber = number;
      }
      if (leaf !== undefined) places[at] = readU64(leaf, (block % PAGE_ENTRIES) * 8);
    }
    return places;
  }

  /** The block's place by what is in memory; undefined when that does not say. */
  placeNow(block: number): number | undefined {
    const place = findIn(this.#overlays(), block);
    if (place !== undefined) return place;
    const leaf = this.#base.index.cachedLeaf(Math.floor(block / PAGE_ENTRIES));
    if (leaf === 'unknown') return undefined;
    return leaf === undefined ? 0 : readU64(leaf, (block % PAGE_ENTRIES) * 8);
  }

  /** A number of blocks from `first` and before `limit` that are certainly holes, or 0. */
  async holeBlocks(first: number, limit: number): Promise<number> {
    const overlays = this.#overlays();
    const leaf = Math.floor(first / PAGE_ENTRIES);
    const leaves = await this.#base.index.holeLeaves(leaf);
    if (leaves === 0) return 0;
    const end = Math.min(limit, (leaf + leaves) * PAGE_ENTRIES);
    return overlays.some(({ blocks }) => hasKeyWithin(blocks, first, end)) ? 0 : end - first;
  }

  async segment(number: number): Promise<SegmentEntry | undefined> {
    for (const overlay of this.#overlays()) {
      const entry = overlay.segments.get(number);
      if (entry !== undefined) return entry;
    }
    const own = this.#base.tableSegments.get(number);
    if (own !== undefined) return own;
    const leaf = await this.#base.table.leaf(Math.floor(number / TABLE_PAGE_ENTRIES));
    return leaf && tableEntry(leaf, number);
  }

  /** Every segment that the state refers to, or may: those of commits, of the table, and the table's own. */
  async *segments(endSegment: number): AsyncGenerator<NumberedSegment> {
    const overlays = this.#overlays();
    const { table, tableSegments } = this.#base;
    const seen = new Set<number>();
    for (const { segments } of overlays) {
      for (const [number, entry] of segments) {
        if (seen.has(number)) continue;
        seen.add(number);
        yield { number, entry };
      }
    }
    for (const [number, entry] of tableSegments) yield { number, entry };
    for await (const { number: leaf, bytes } of table.leaves(Math.ceil(endSegment / TABLE_PAGE_ENTRIES))) {
      for (let number = leaf * TABLE_PAGE_ENTRIES; number < (leaf + 1) * TABLE_PAGE_ENTRIES; number += 1) {
        const entry = seen.has(number) ? undefined : tableEntry(bytes, number);
        if (entry !== undefined) yield { number, entry };
      }
    }
  }

  #overlays(): Overlay[] {
    return this.#folding === undefined ? [this.#current] : [this.#current, this.#folding];
  }
}

/** One entry of a page of the segment table. */
export function tableEntry(leaf: Buffer, number: number): SegmentEntry | undefined {
  const at = (number % TABLE_PAGE_ENTRIES) * SEGMENT_ENTRY_BYTES;
  return decodeSegmentEntry(leaf.subarray(at, at + SEGMENT_ENTRY_BYTES), `segment table, entry ${number}`);
}

/** Pages by place, in bounded memory. */
export class Pages implements PageSource {
  readonly cache: ByteCache<number, Buffer>;
  #frames: FrameReader | undefined;

  constructor(limitBytes: number) {
    this.cache = new ByteCache(limitBytes);
  }

  /** Pages lie in frames, and frames are found through pages: the two meet here. */
  readFrom(frames: FrameReader): void {
    this.#frames = frames;
  }

  cached(place: number): Buffer | undefined {
    return this.cache.get(place);
  }

  async load(place: number, lba: number): Promise<Buffer> {
    const [page] = await this.#load([{ place, lba }]);
    if (page === undefined) throw new RangeError('no page');
    return page;
  }

  async loadAll(pages: readonly PagePlace[]): Promise<void> {
    await this.#load(pages);
  }

  async #load(pages: readonly PagePlace[]): Promise<Buffer[]> {
    if (this.#frames === undefined) throw new RangeError('pages without a reader');
    const requests = pages.map(({ place, lba }) => ({
      segment: locationSegment(place),
      frame: locationFrame(place),
      lba,
    }));
    const found = await this.#frames.use(requests, (frames) => frames.map(copyPage), { keep: false });
    for (const [index, { place }] of pages.entries()) {
      const page = found[index];
      if (page !== undefined) this.cache.set(place, page);
    }
    return found;
  }
}

function copyPage(frame: Buffer): Buffer {
  if (frame.length !== BLOCK_BYTES) throw new RangeError(`a page of ${frame.length} bytes`);
  const page = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  page.set(frame);
  return page;
}

function findIn(overlays: readonly Overlay[], block: number): number | undefined {
  for (const overlay of overlays) {
    const place = overlay.find(block);
    if (place !== undefined) return place;
  }
  return undefined;
}
