import { readU64, writeU64 } from '../fields.ts';
import { BLOCK_BYTES, INDEX_LEVELS, PAGE_ENTRIES } from '../limits.ts';
import type { Tree } from './tree.ts';

/** Pages that are read together, ahead of the walk: one at a time a store's latency would rule a checkpoint. */
const PAGES_AT_ONCE = 16;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

/** What a new version of a tree differs in from the one before. */
export interface PageChanges {
  /** Something below this page is to be looked at. */
  concerns(level: number, page: number): boolean;
  /** Something below is to be written, so that even a hole is to be looked at. */
  writes(level: number, page: number): boolean;
  /** Written anew even if nothing in it changes. */
  moves(level: number, page: number): boolean;
  /** Changes the leaf's bytes in place. */
  apply(leaf: number, bytes: Buffer): void;
}

/** Where the new version's pages go, and what becomes of the old one's. */
export interface PageSink {
  /** The place of a page that will be durable before the new root is named. */
  emit(level: number, page: number, bytes: Buffer): Promise<number>;
  /** No page of the new version is here any more. */
  release(place: number): void;
}

/** Writes the pages that differ, children before parents. Returns the new root's place. */
export function rebuild(tree: Tree, changes: PageChanges, sink: PageSink): Promise<number> {
  return rebuildPage(tree, changes, sink, INDEX_LEVELS - 1, 0, tree.root);
}

async function rebuildPage(
  tree: Tree,
  changes: PageChanges,
  sink: PageSink,
  level: number,
  page: number,
  place: number,
): Promise<number> {
  if (!changes.concerns(level, page) || (place === 0 && !changes.writes(level, page))) return place;
  const before = place === 0 ? ZEROS : await tree.page(level, page, place);
  const bytes = Buffer.from(before);
  if (level === 0) {
    changes.apply(page, bytes);
  } else {
    await rebuildChildren(tree, changes, sink, level, page, bytes);
  }
  if (bytes.equals(before) && !(place !== 0 && changes.moves(level, page))) return place;
  if (place !== 0) sink.release(place);
  return bytes.equals(ZEROS) ? 0 : sink.emit(level, page, bytes);
}

async function rebuildChildren(
  tree: Tree,
  changes: PageChanges,
  sink: PageSink,
  level: number,
  page: number,
  bytes: Buffer,
): Promise<void> {
  const children: { readonly page: number; readonly place: number; readonly at: number }[] = [];
  for (let index = 0; index < PAGE_ENTRIES; index += 1) {
    const child = page * PAGE_ENTRIES + index;
    if (changes.concerns(level - 1, child)) {
      children.push({ page: child, place: readU64(bytes, index * 8), at: index * 8 });
    }
  }
  for (let from = 0; from < children.length; from += PAGES_AT_ONCE) {
    const some = children.slice(from, from + PAGES_AT_ONCE);
    await tree.prefetch(level - 1, some);
    for (const { page: child, place, at } of some) {
      writeU64(bytes, await rebuildPage(tree, changes, sink, level - 1, child, place), at);
    }
  }
}

/** Numbers in ascending order, and whether any lies in a range. */
export class SortedNumbers {
  readonly values: Float64Array;

  constructor(values: Iterable<number>) {
    this.values = Float64Array.from(values).sort();
  }

  /** Index of the first number that is not below `value`. */
  from(value: number): number {
    let low = 0;
    let high = this.values.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.values[middle] ?? 0) < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  overlaps(start: number, end: number): boolean {
    return (this.values[this.from(start)] ?? Number.POSITIVE_INFINITY) < end;
  }
}
