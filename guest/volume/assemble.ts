import { Anchoring } from './anchoring.ts';
import { followInCache } from './cache-follow.ts';
import { Checkpointer } from './checkpoint.ts';
import type { CommitPoint } from './commit.ts';
import { CommitSealer, type VolumeHead } from './commit-sealer.ts';
import type { VolumeAccess } from './create.ts';
import { Volume } from './engine.ts';
import { Committer } from './flush.ts';
import { FrameReader } from './frames.ts';
import { append, type Frontier } from './frontier.ts';
import { Health } from './health.ts';
import { VolumeIndex } from './index/volume-index.ts';
import { replay } from './inspect.ts';
import type { VolumeLimits } from './limits.ts';
import { headOf, type LocatedVolume } from './locate.ts';
import { Memory } from './memory.ts';
import { BlockReader } from './reader.ts';
import { Reaper } from './reaper.ts';
import type { Checkpoint } from './record.ts';
import { Repacker } from './repack.ts';
import type { OpenedCommit } from './tail.ts';
import { BlockWriter } from './writer.ts';

function logAfter(located: LocatedVolume, commit: OpenedCommit): Frontier {
  return append(commit.record.frontier, Anchoring.leafOf(located.ring.volume, commit.point).leaf);
}

function volumeHead(located: LocatedVolume): VolumeHead {
  const head = headOf(located);
  const { sizeBytes, oldestGeneration, checkpointEpoch, checkpointSeq } = head.record;
  return {
    point: head.point,
    frontier: logAfter(located, head),
    sizeBytes,
    generation: head.header.generation,
    oldestGeneration,
    checkpointEpoch,
    checkpointSeq,
  };
}

/** Waits of `anchored(seq)`, resolved as the anchor moves and rejected when the volume fails. */
class AnchorWaits {
  #waits: { readonly seq: number; readonly done: PromiseWithResolvers<void> }[] = [];
  #seq: number;

  constructor(seq: number, health: Health) {
    this.#seq = seq;
    health.onFailure((error) => {
      for (const { done } of this.#waits) done.reject(error);
      this.#waits = [];
    });
  }

  wait(seq: number): Promise<void> {
    if (seq <= this.#seq) return Promise.resolve();
    const done = Promise.withResolvers<void>();
    this.#waits.push({ seq, done });
    return done.promise;
  }

  moved(seq: number): void {
    this.#seq = seq;
    for (const wait of this.#waits) if (wait.seq <= seq) wait.done.resolve();
    this.#waits = this.#waits.filter((wait) => wait.seq > seq);
  }
}

/** Puts an attached volume together from the state that was found; nothing is claimed or written yet. */
export function assemble(
  options: VolumeAccess,
  limits: VolumeLimits,
  located: LocatedVolume,
  epoch: number,
  checkpoint: Checkpoint,
  tail: readonly OpenedCommit[],
): Volume {
  const { environment } = options;
  const { objects, ring, header } = located;
  const head = volumeHead(located);
  const health = new Health();
  const memory = new Memory(limits.dirtyBytes);
  const index = new VolumeIndex(limits, checkpoint);
  replay(index, tail);
  const frames = new FrameReader(objects, ring, limits, (number) => index.segment(number));
  index.pages.readFrom(frames);
  const reader = new BlockReader(memory, index, frames);
  const waits = new AnchorWaits(located.anchored.point.seq, health);
  const anchored = (seq: number): Promise<void> => waits.wait(seq);
  const base = { objects, ring, environment, limits, memory, index, health };
  const nextSegment = headOf(located).record.nextSegment;
  const sealer = new CommitSealer(head, nextSegment, { ...base, epoch });
  const committer = new Committer(head, sealer, {
    ...base,
    isHeldUp: () => checkpointer.isBehind,
    onStored: (layer, group) => followInCache({ index, memory, frames }, layer, group),
    onSettled: (commit) => {
      checkpointer.onSettled(commit);
      void repacker.run();
    },
  });
  const reaper = new Reaper(objects, environment, limits.deleteGraceMs, health);
  const checkpointer = new Checkpointer(checkpoint, tail.length, {
    ...base,
    frames,
    sealer,
    committer,
    reaper,
    anchored,
  });
  const checkpointSettled = (): Promise<void> => checkpointer.settled();
  const writer = new BlockWriter({ ...base, reader, committer, checkpointSettled });
  const room = (): Promise<void> => writer.room();
  const gatherBytes = Math.min(limits.segmentBytes, limits.dirtyBytes) / 4;
  const spill = (): void => committer.spill();
  const useCount = (): number => reader.readCount + writer.writeCount;
  const repacker = new Repacker({ ...base, frames, checkpointer, useCount, room, gatherBytes, spill });
  const anchoring = startAnchoring(options, limits, located, health, committer, waits);
  committer.anchorWith(anchoring);
  const anchoredPoint = (): CommitPoint => anchoring.anchored;
  const own = { ...base, header, epoch, attachedFrom: head.point, firstSegment: nextSegment };
  const work = { frames, reader, writer, sealer, committer, checkpointer, reaper, repacker };
  const parts = { ...own, ...work, anchoredPoint, anchored };
  return new Volume(head.sizeBytes, parts);
}

function startAnchoring(
  options: VolumeAccess,
  limits: VolumeLimits,
  located: LocatedVolume,
  health: Health,
  committer: Committer,
  waits: AnchorWaits,
): Anchoring {
  const { ring, header, anchored, rolled } = located;
  const start = { point: anchored.point, frontier: logAfter(located, anchored) };
  const anchoring = new Anchoring(start, headOf(located).point.seq, {
    anchor: header.mode.kind === 'none' ? undefined : options.anchor,
    volume: { anchorId: header.anchorId, signingSeed: ring.volume.anchorSeed },
    keys: ring.volume,
    mode: header.mode,
    environment: options.environment,
    limits,
    onAcknowledge: (seq) => committer.acknowledged(seq),
    onAnchored: (point) => waits.moved(point.seq),
    onFailure: (error) => health.fail(error),
  });
  anchoring.rolledForward(rolled.map(({ point }) => point));
  return anchoring;
}
