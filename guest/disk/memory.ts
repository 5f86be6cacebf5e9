import { BLOCK_BYTES, DEFAULT_LIMITS, FRAME_MAX_BLOCKS, type VolumeLimits } from '../volume/limits.ts';
import { MEMORY_DEFAULT_BYTES } from './config.ts';

const FRAME_BYTES = FRAME_MAX_BLOCKS * BLOCK_BYTES;

/**
 * The engine's limits for so much memory: what fits MEMORY_DEFAULT_BYTES, larger or smaller in proportion. Objects grow no
 * larger than the default's, since the store's own limit is not in proportion to anybody's memory.
 */
export function limitsFor(memoryBytes: number): VolumeLimits {
  const share = memoryBytes / MEMORY_DEFAULT_BYTES;
  const scaled = (bytes: number): number => Math.max(FRAME_BYTES, wholeFrames(bytes * share));
  const capped = (bytes: number): number => Math.min(bytes, scaled(bytes));
  const segmentBytes = capped(DEFAULT_LIMITS.segmentBytes);
  return {
    ...DEFAULT_LIMITS,
    segmentBytes,
    spillBytes: capped(DEFAULT_LIMITS.spillBytes),
    inlineBytes: capped(DEFAULT_LIMITS.inlineBytes),
    dirtyBytes: Math.min(scaled(DEFAULT_LIMITS.dirtyBytes), 32 * segmentBytes),
    pageCacheBytes: scaled(DEFAULT_LIMITS.pageCacheBytes),
    readCacheBytes: scaled(DEFAULT_LIMITS.readCacheBytes),
    readAheadBytes: capped(DEFAULT_LIMITS.readAheadBytes),
    checkpointBlocks: Math.min(
      DEFAULT_LIMITS.checkpointBlocks,
      Math.floor(DEFAULT_LIMITS.checkpointBlocks * share),
    ),
  };
}

function wholeFrames(bytes: number): number {
  return Math.floor(bytes / FRAME_BYTES) * FRAME_BYTES;
}
