import type { FlushMode } from './header.ts';
import type { InspectedVolume } from './inspect.ts';
import { BLOCK_BYTES } from './limits.ts';
import { blockCount } from './segment.ts';

/** What `postern volume status` says of a volume at rest, or of one that another instance has attached. */
export interface VolumeStatus {
  readonly name: string;
  readonly volumeId: string;
  readonly sizeBytes: number;
  readonly mode: FlushMode;
  readonly attached: boolean;
  readonly epoch: number;
  readonly seq: number;
  /** What an owner signs for a restore. */
  readonly headHash: string;
  readonly unanchoredCommits: number;
  readonly generation: number;
  readonly oldestGeneration: number;
  readonly tailCommits: number;
  readonly segments: number;
  readonly storedBytes: number;
  readonly liveBytes: number;
  readonly snapshots: readonly SnapshotStatus[];
}

export interface SnapshotStatus {
  readonly name: string;
  readonly id: string;
  readonly time: string;
  readonly seq: number;
  readonly sizeBytes: number;
}

export async function volumeStatus(volume: InspectedVolume): Promise<VolumeStatus> {
  const { head, header, rolled, tail, checkpoint, index } = volume;
  let segments = 0;
  let stored = 0;
  let live = 0;
  for await (const { entry } of index.segments(head.record.nextSegment)) {
    segments += 1;
    stored += blockCount(entry) * BLOCK_BYTES;
    live += entry.liveBlocks * BLOCK_BYTES;
  }
  return {
    name: header.name,
    volumeId: header.volumeId.toString('hex'),
    sizeBytes: head.record.sizeBytes,
    mode: header.mode,
    attached: !head.record.detach,
    epoch: head.point.epoch,
    seq: head.point.seq,
    headHash: head.point.hash.toString('hex'),
    unanchoredCommits: rolled.length,
    generation: head.header.generation,
    oldestGeneration: head.record.oldestGeneration,
    tailCommits: tail.length,
    segments,
    storedBytes: stored,
    liveBytes: live + index.current.blocks.size * BLOCK_BYTES,
    snapshots: checkpoint.snapshots.map(({ id, name, timeMs, seq, sizeBytes }) => ({
      name,
      id: id.toString('hex'),
      time: new Date(timeMs).toISOString(),
      seq,
      sizeBytes,
    })),
  };
}
