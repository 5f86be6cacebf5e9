import { PosternError } from '../../shared/errors.ts';
import { sealedCommitBytes } from './commit.ts';
import { withBase } from './commit-sealer.ts';
import type { VolumeAccess } from './create.ts';
import { FrameReader } from './frames.ts';
import { VolumeIndex } from './index/volume-index.ts';
import { DEFAULT_LIMITS } from './limits.ts';
import { assertKept, headOf, type LocatedVolume, locateVolume } from './locate.ts';
import type { Checkpoint } from './record.ts';
import type { OpenedCommit } from './tail.ts';

/** A volume's newest state to look at, without attaching it: nothing is claimed, nobody is shut out. */
export interface InspectedVolume extends LocatedVolume {
  readonly head: OpenedCommit;
  readonly tail: readonly OpenedCommit[];
  readonly checkpoint: Checkpoint;
  readonly index: VolumeIndex;
  readonly frames: FrameReader;
}

/** While another instance goes on writing, objects of the state that this found may be freed under its feet. */
export async function inspectVolume(access: VolumeAccess): Promise<InspectedVolume> {
  const located = await locateVolume(access);
  assertKept(located);
  const head = headOf(located);
  const tail = await located.commits.tail(head);
  const checkpoint = checkpointOf(head, tail);
  const limits = access.limits ?? DEFAULT_LIMITS;
  const index = new VolumeIndex(limits, checkpoint);
  replay(index, tail);
  const frames = new FrameReader(located.objects, located.ring, limits, (number) => index.segment(number));
  index.pages.readFrom(frames);
  return { ...located, head, tail, checkpoint, index, frames };
}

/** The newest checkpoint of a state. @throws ERR_VOLUME_CORRUPT */
export function checkpointOf(head: OpenedCommit, tail: readonly OpenedCommit[]): Checkpoint {
  const { checkpointSeq } = head.record;
  const carrier = [head, ...tail].find(({ point }) => point.seq === checkpointSeq);
  if (carrier?.record.checkpoint === undefined) {
    throw new PosternError('ERR_VOLUME_CORRUPT', `no checkpoint at commit ${checkpointSeq}`);
  }
  return carrier.record.checkpoint;
}

/** Adds the deltas of the commits after the checkpoint. */
export function replay(index: VolumeIndex, tail: readonly OpenedCommit[]): void {
  for (const commit of tail) {
    for (const group of commit.record.groups) index.apply(withBase(group, sealedCommitBytes(commit.header)));
  }
}
