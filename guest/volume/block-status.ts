import type { BlockExtent } from '../nbd/device.ts';
import type { VolumeIndex } from './index/volume-index.ts';
import { BLOCK_BYTES, PAGE_ENTRIES } from './limits.ts';
import type { MemoryView } from './memory.ts';

/** Extents of one answer; the client asks again for the rest. */
const EXTENTS_MAX = 512;
/** Leaves looked at for one answer. */
const LEAVES_MAX = 256;

/** Holes and data from `offset` on, joined where they touch. `memory` is of before the index was asked for the first time. */
export async function blockStatus(
  memory: MemoryView,
  index: VolumeIndex,
  offset: number,
  length: number,
): Promise<BlockExtent[]> {
  const extents: { length: number; hole: boolean; zero: boolean }[] = [];
  const end = offset + length;
  let at = offset;
  const push = (to: number, hole: boolean): void => {
    const upTo = Math.min(to, end);
    if (upTo <= at) return;
    const last = extents.at(-1);
    if (last?.hole === hole) last.length += upTo - at;
    else extents.push({ length: upTo - at, hole, zero: hole });
    at = upTo;
  };
  for (let leaves = 0; at < end && extents.length < EXTENTS_MAX && leaves < LEAVES_MAX; leaves += 1) {
    const first = Math.floor(at / BLOCK_BYTES);
    const endBlock = Math.ceil(end / BLOCK_BYTES);
    const holeBlocks = await index.holeBlocks(first, endBlock);
    if (holeBlocks > 0 && !memory.touches(first, first + holeBlocks)) {
      push((first + holeBlocks) * BLOCK_BYTES, true);
      continue;
    }
    const last = Math.min(endBlock, (Math.floor(first / PAGE_ENTRIES) + 1) * PAGE_ENTRIES);
    const places = await index.places(first, last - first);
    for (let block = first; block < last; block += 1) {
      const found = memory.find(block);
      push(
        (block + 1) * BLOCK_BYTES,
        found === 'hole' || (found === undefined && places[block - first] === 0),
      );
    }
  }
  return extents;
}
