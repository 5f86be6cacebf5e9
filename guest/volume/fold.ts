import { readU64, writeU64 } from './fields.ts';
import type { Overlay } from './index/overlay.ts';
import { type PageChanges, SortedNumbers } from './index/rebuild.ts';
import { tableEntry } from './index/volume-index.ts';
import { PAGE_ENTRIES, TABLE_PAGE_ENTRIES } from './limits.ts';
import { encodeSegmentEntry, locationSegment, SEGMENT_ENTRY_BYTES, type SegmentEntry } from './segment.ts';

/** Pages that are to be written anew, so that the segment which holds them may go. */
export class MovedPages {
  readonly #pages = new Set<string>();
  readonly #above = new Set<string>();

  add(level: number, page: number): void {
    this.#pages.add(`${level}/${page}`);
    for (let up = level, at = page; up <= 3; up += 1, at = Math.floor(at / PAGE_ENTRIES))
      this.#above.add(`${up}/${at}`);
  }

  has(level: number, page: number): boolean {
    return this.#pages.has(`${level}/${page}`);
  }

  /** It or something below it. */
  reaches(level: number, page: number): boolean {
    return this.#above.has(`${level}/${page}`);
  }
}

/** Counts by which segments' live blocks differ. */
export class LiveCounts {
  readonly changes = new Map<number, number>();

  add(place: number, count: number): void {
    const segment = locationSegment(place);
    this.changes.set(segment, (this.changes.get(segment) ?? 0) + count);
  }
}

/** What an overlay changes in the pages of the index; the live counts follow from what it replaces. */
export function indexChanges(overlay: Overlay, moved: MovedPages, live: LiveCounts): PageChanges {
  const written = new SortedNumbers(overlay.blocks.keys());
  const range = (level: number, page: number): [number, number] => {
    const blocks = PAGE_ENTRIES ** (level + 1);
    return [page * blocks, (page + 1) * blocks];
  };
  const writes = (level: number, page: number): boolean => written.overlaps(...range(level, page));
  return {
    writes,
    concerns: (level, page) =>
      writes(level, page) || overlay.trims.overlaps(...range(level, page)) || moved.reaches(level, page),
    moves: (level, page) => moved.has(level, page),
    apply(leaf, bytes) {
      const [first, end] = range(0, leaf);
      if (!writes(0, leaf) && !overlay.trims.overlaps(first, end)) return;
      for (let at = 0; at < PAGE_ENTRIES; at += 1) {
        const place = overlay.find(first + at);
        const before = readU64(bytes, at * 8);
        if (place === undefined || place === before) continue;
        if (before !== 0) live.add(before, -1);
        if (place !== 0) live.add(place, 1);
        writeU64(bytes, place, at * 8);
      }
    },
  };
}

/** Decides over one entry of the segment table: the entry as it is to stand, or undefined to free it. */
export type EntryDecision = (number: number, entry: SegmentEntry) => SegmentEntry | undefined;

/** What the counts and the new segments change in the pages of the segment table. */
export function tableChanges(
  numbers: Iterable<number>,
  added: ReadonlyMap<number, SegmentEntry>,
  counts: LiveCounts,
  decide: EntryDecision,
  sweep: boolean,
  moved: MovedPages,
): PageChanges {
  const touched = new SortedNumbers(numbers);
  const writes = (level: number, page: number): boolean => {
    const entries = TABLE_PAGE_ENTRIES * PAGE_ENTRIES ** level;
    return touched.overlaps(page * entries, (page + 1) * entries);
  };
  return {
    writes,
    concerns: (level, page) => sweep || writes(level, page) || moved.reaches(level, page),
    moves: (level, page) => moved.has(level, page),
    apply(leaf, bytes) {
      const first = leaf * TABLE_PAGE_ENTRIES;
      for (let number = first; number < first + TABLE_PAGE_ENTRIES; number += 1) {
        const change = counts.changes.get(number) ?? 0;
        const before = tableEntry(bytes, number) ?? added.get(number);
        if (before === undefined) {
          if (change !== 0) throw new RangeError(`segment ${number} is counted and not in the table`);
          continue;
        }
        if (!sweep && change === 0 && !added.has(number)) continue;
        const liveBlocks = before.liveBlocks + change;
        if (liveBlocks < 0) throw new RangeError(`segment ${number} has ${liveBlocks} live blocks`);
        const after = decide(number, { ...before, liveBlocks });
        const at = (number - first) * SEGMENT_ENTRY_BYTES;
        bytes.fill(0, at, at + SEGMENT_ENTRY_BYTES);
        if (after !== undefined) bytes.set(encodeSegmentEntry(after), at);
      }
    },
  };
}
