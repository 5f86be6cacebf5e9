import { readU64 } from '../fields.ts';
import { INDEX_LEVELS, PAGE_ENTRIES } from '../limits.ts';

/** lbas of pages stand above those of blocks, each tree and level in its own range of 2^40. */
const RANGE = 2 ** 40;
export const TREE_BASES = { index: 1, table: 9 } as const;
export type TreeKind = keyof typeof TREE_BASES;
export const MANIFEST_LBA = 32 * RANGE;

/** The lba that a page is sealed under. */
export function pageLba(kind: TreeKind, level: number, page: number): number {
  return (TREE_BASES[kind] + level) * RANGE + page;
}

/** The reverse; undefined when it is no page of this tree. */
export function parsePageLba(kind: TreeKind, lba: number): { level: number; page: number } | undefined {
  const level = Math.floor(lba / RANGE) - TREE_BASES[kind];
  return level >= 0 && level < INDEX_LEVELS ? { level, page: lba % RANGE } : undefined;
}

/** Where pages come from: by their place, which says all, since pages are never changed. */
export interface PagePlace {
  readonly place: number;
  readonly lba: number;
}

export interface PageSource {
  /** The page if it is in memory. */
  cached(place: number): Buffer | undefined;
  /** @throws ERR_VOLUME_CORRUPT, ERR_VOLUME_MISSING, ERR_VOLUME_UNAVAILABLE */
  load(place: number, lba: number): Promise<Buffer>;
  /** Brings pages into memory together, neighbours with one GET. @throws as `load` */
  loadAll(pages: readonly PagePlace[]): Promise<void>;
}

/** One version of a tree of pages: four levels, 512 children each, holes where nothing was ever written. */
export class Tree {
  readonly kind: TreeKind;
  readonly root: number;
  readonly #pages: PageSource;

  constructor(kind: TreeKind, root: number, pages: PageSource) {
    this.kind = kind;
    this.root = root;
    this.#pages = pages;
  }

  /** Leaf `number`; undefined where it is a hole. The caller does not change it. */
  async leaf(number: number): Promise<Buffer | undefined> {
    let place = this.root;
    for (let level = INDEX_LEVELS - 1; place !== 0; level -= 1) {
      const page = await this.page(level, Math.floor(number / PAGE_ENTRIES ** level), place);
      if (level === 0) return page;
      place = childPlace(page, level, number);
    }
    return undefined;
  }

  /** The same from memory alone: `unknown` when some page on the way is not there. */
  cachedLeaf(number: number): Buffer | undefined | 'unknown' {
    let place = this.root;
    for (let level = INDEX_LEVELS - 1; place !== 0; level -= 1) {
      const page = this.#pages.cached(place);
      if (page === undefined) return 'unknown';
      if (level === 0) return page;
      place = childPlace(page, level, number);
    }
    return undefined;
  }

  /** How many leaves from `number` on are certainly holes, by the pages above them. */
  async holeLeaves(number: number): Promise<number> {
    let place = this.root;
    for (let level = INDEX_LEVELS - 1; ; level -= 1) {
      const covered = PAGE_ENTRIES ** level;
      if (place === 0) return covered - (number % covered);
      if (level === 0) return 0;
      place = childPlace(await this.page(level, Math.floor(number / covered), place), level, number);
    }
  }

  /** Where a page is; 0: nowhere. */
  async placeOf(level: number, page: number): Promise<number> {
    const leaf = page * PAGE_ENTRIES ** level;
    let place = this.root;
    for (let at = INDEX_LEVELS - 1; at > level && place !== 0; at -= 1) {
      place = childPlace(await this.page(at, Math.floor(leaf / PAGE_ENTRIES ** at), place), at, leaf);
    }
    return place;
  }

  /** Every leaf that is no hole, ascending, below leaf number `end`. */
  async *leaves(end: number): AsyncGenerator<{ readonly number: number; readonly bytes: Buffer }> {
    for (let number = 0; number < end; ) {
      const holes = await this.holeLeaves(number);
      if (holes > 0) {
        number += holes;
        continue;
      }
      const bytes = await this.leaf(number);
      if (bytes !== undefined) yield { number, bytes };
      number += 1;
    }
  }

  /** Brings pages of one level into memory. */
  async prefetch(
    level: number,
    pages: readonly { readonly page: number; readonly place: number }[],
  ): Promise<void> {
    const missing = pages.filter(({ place }) => place !== 0 && this.#pages.cached(place) === undefined);
    if (missing.length < 2) return;
    await this.#pages.loadAll(
      missing.map(({ page, place }) => ({ place, lba: pageLba(this.kind, level, page) })),
    );
  }

  async page(level: number, page: number, place: number): Promise<Buffer> {
    return this.#pages.cached(place) ?? (await this.#pages.load(place, pageLba(this.kind, level, page)));
  }
}

function childPlace(page: Buffer, level: number, leaf: number): number {
  return readU64(page, (Math.floor(leaf / PAGE_ENTRIES ** (level - 1)) % PAGE_ENTRIES) * 8);
}
