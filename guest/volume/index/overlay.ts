import { deleteRange, IntervalSet } from '../intervals.ts';
import type { DeltaGroup } from '../record.ts';
import { location, type SegmentEntry } from '../segment.ts';

/** What commits since a checkpoint changed: places of blocks, holes, and the segments that they brought. */
export class Overlay {
  /** Block number to place; stands above `trims`. */
  readonly blocks = new Map<number, number>();
  readonly trims = new IntervalSet();
  readonly segments = new Map<number, SegmentEntry>();

  /** The block's place, 0 for a hole, undefined when nothing here speaks of it. */
  find(block: number): number | undefined {
    const place = this.blocks.get(block);
    if (place !== undefined) return place;
    return this.trims.count > 0 && this.trims.has(block) ? 0 : undefined;
  }

  /** Groups are applied in the order of the log; applying one again changes nothing. */
  apply(group: DeltaGroup): void {
    for (const { lba, count } of group.trims) {
      deleteRange(this.blocks, lba, lba + count);
      this.trims.add(lba, lba + count);
    }
    for (const { number, entry, spans } of group.segments) {
      this.segments.set(number, entry);
      for (const [frame, span] of spans.entries()) {
        for (let at = 0; at < span.blocks; at += 1)
          this.blocks.set(span.lba + at, location(number, frame, at));
      }
    }
  }
}
