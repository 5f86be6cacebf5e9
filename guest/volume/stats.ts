import type { Volume } from './engine.ts';

/** What an attached volume has done since its attach, and what it holds in memory now. Counts and bytes. */
export interface VolumeStats {
  readonly commits: number;
  readonly spills: number;
  readonly checkpoints: number;
  readonly repackedSegments: number;
  readonly deletedObjects: number;
  readonly puts: number;
  readonly putBytes: number;
  readonly gets: number;
  readonly getBytes: number;
  /** Dirty, and on its way to the store. */
  readonly unsettledBytes: number;
  /** The commit that the anchor holds. */
  readonly anchoredSeq: number;
}

export function volumeStats({ parts }: Volume): VolumeStats {
  const { committer, checkpointer, repacker, reaper, objects, memory } = parts;
  const { puts, putBytes, gets, getBytes } = objects.counts;
  return {
    commits: committer.commitCount,
    spills: committer.spillCount,
    checkpoints: checkpointer.checkpointCount,
    repackedSegments: repacker.repackedSegments,
    deletedObjects: reaper.deletedCount,
    puts,
    putBytes,
    gets,
    getBytes,
    unsettledBytes: memory.usedBytes,
    anchoredSeq: parts.anchoredPoint().seq,
  };
}
