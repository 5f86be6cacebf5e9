import { allocateBody } from '../../shared/objects/bodies.ts';
import type { FrameReader } from './frames.ts';
import type { VolumeIndex } from './index/volume-index.ts';
import { BLOCK_BYTES } from './limits.ts';
import type { Layer, Memory } from './memory.ts';
import type { DeltaGroup } from './record.ts';
import { type FrameSpan, locationFrame, locationSegment } from './segment.ts';

export interface CacheFollowParts {
  readonly index: VolumeIndex;
  readonly memory: Memory;
  readonly frames: FrameReader;
}

/**
 * Keeps what is in the read cache there when it moves: blocks that somebody writes anew, and those that repacking moves,
 * leave memory for a new frame, which the next read would have to fetch. To be called when a layer is stored, before
 * the index says so. A frame of which less than half was cached is not: it would push out more than it brings.
 */
export function followInCache(
  { index, memory, frames }: CacheFollowParts,
  layer: Layer,
  group: DeltaGroup,
): void {
  if (frames.cache.usedBytes === 0) return;
  for (const { number, spans } of group.segments) {
    for (const [frame, span] of spans.entries()) {
      if (isCached(index, frames, span))
        frames.insert({ segment: number, frame, lba: span.lba }, copy(memory, layer, span));
    }
  }
}

function isCached(index: VolumeIndex, frames: FrameReader, { lba, blocks }: FrameSpan): boolean {
  let missing = 0;
  for (let block = lba; block < lba + blocks; block += 1) {
    const place = index.placeNow(block);
    if (!place || !frames.isCached(locationSegment(place), locationFrame(place))) missing += 1;
    if (2 * missing > blocks) return false;
  }
  return true;
}

function copy(memory: Memory, layer: Layer, { lba, blocks }: FrameSpan): Buffer {
  const bytes = allocateBody(blocks * BLOCK_BYTES);
  for (let at = 0; at < blocks; at += 1) {
    const slot = layer.blocks.get(lba + at);
    if (slot === undefined) throw new RangeError(`block ${lba + at} is not in its layer`);
    bytes.set(memory.bytesOf(slot), at * BLOCK_BYTES);
  }
  return bytes;
}
