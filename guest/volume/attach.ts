import { PosternError } from '../../shared/errors.ts';
import { Anchoring } from './anchoring.ts';
import { Checkpointer } from './checkpoint.ts';
import { encodeClaim } from './claim.ts';
import type { CommitPoint } from './commit.ts';
import type { VolumeAccess } from './create.ts';
import { Volume } from './engine.ts';
import { Committer, type VolumeHead } from './flush.ts';
import { FrameReader } from './frames.ts';
import { append, type Frontier } from './frontier.ts';
import { Health } from './health.ts';
import { VolumeIndex } from './index/volume-index.ts';
import { checkpointOf, replay } from './inspect.ts';
import { checkLimits, DEFAULT_LIMITS, type VolumeLimits } from './limits.ts';
import { headOf, type LocatedVolume, locateVolume } from './locate.ts';
import { Memory } from './memory.ts';
import { CLAIM_PREFIX, claimName, commitName } from './names.ts';
import { BlockReader } from './reader.ts';
import { Reaper } from './reaper.ts';
import { type Checkpoint, NONCE_BYTES } from './record.ts';
import { Repacker } from './repack.ts';
import type { OpenedCommit } from './tail.ts';
import { BlockWriter } from './writer.ts';

/** How often a takeover meets progress of the instance that it is to shut out. */
const TAKEOVER_ATTEMPTS = 16;
/** Time for that instance to run into its blocked name. */
const TAKEOVER_PAUSE_MS = 100;
/** No instance gets further ahead than this between two looks. */
const BLOCK_AHEAD_MAX = 65_536;
/** Epochs that one attach tries to claim, each twice as far ahead as the last. */
const CLAIM_ATTEMPTS = 32;

export interface AttachOptions extends VolumeAccess {
  /** Take a volume over that was not detached: after a crash, or from an instance that still runs and is shut out. */
  readonly takeover?: boolean;
}

/**
 * Attaches a volume: finds the newest acknowledged state, claims an epoch, commits random bytes and has them anchored.
 * Only then, when no older instance can acknowledge anything any more, is it given out.
 * @throws ERR_VOLUME_IN_USE without `takeover`, ERR_VOLUME_FENCED when another attach was faster, and what locating throws
 */
export async function attachVolume(options: AttachOptions): Promise<Volume> {
  const limits = options.limits ?? DEFAULT_LIMITS;
  checkLimits(limits);
  sayModes(options);
  const first = await locateVolume(options);
  let located = first;
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await attachTo(located, options, limits);
    } catch (error) {
      const isRace = ['ERR_VOLUME_FENCED', 'ERR_VOLUME_MISSING'].some((code) => hasCode(error, code));
      if (!isRace || attempt === TAKEOVER_ATTEMPTS) throw error;
      const before = located.anchored.point;
      located = await locateVolume(options);
      const { epoch, seq } = located.anchored.point;
      // Lost to another attach, which has the volume now, or not lost to anybody's progress at all.
      if (epoch !== first.anchored.point.epoch || seq === before.seq) throw error;
      await blockWriter(located, options, limits);
      await options.environment.clock.sleep(TAKEOVER_PAUSE_MS);
      located = await locateVolume(options);
    }
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof PosternError && error.code === code;
}

async function attachTo(
  located: LocatedVolume,
  options: AttachOptions,
  limits: VolumeLimits,
): Promise<Volume> {
  const head = headOf(located);
  if (!head.record.detach && options.takeover !== true) {
    throw new PosternError(
      'ERR_VOLUME_IN_USE',
      `volume ${options.name} was not detached: it is in use, or its last user crashed; --takeover attaches it and shuts that one out`,
    );
  }
  const tail = await located.commits.tail(head);
  const checkpoint = checkpointOf(head, tail);
  const epoch = await claimEpoch(located, head.point.epoch, options);
  const volume = assemble(options, limits, located, epoch, checkpoint, tail);
  const { committer, reaper } = volume.parts;
  try {
    const seq = committer.nextSeq;
    await committer.commit({ nonce: options.environment.random(NONCE_BYTES) });
    await volume.parts.anchored(seq);
  } catch (error) {
    volume.close();
    throw error;
  }
  reaper.add(checkpoint.freed);
  void forgetClaims(located, epoch);
  return volume;
}

/**
 * An instance that goes on committing would win the race for the anchor again and again. Its commits need names that can
 * be written once only: taking one a little ahead of it ends its chain there.
 */
async function blockWriter(
  located: LocatedVolume,
  options: AttachOptions,
  limits: VolumeLimits,
): Promise<void> {
  const { epoch, seq } = headOf(located).point;
  for (let ahead = limits.pipelineCommits + 1; ahead < BLOCK_AHEAD_MAX; ahead *= 2) {
    const name = commitName(epoch, seq + ahead);
    if ((await located.objects.claim(name, options.environment.random(NONCE_BYTES))) === 'stored') return;
  }
}

function sayModes({ anchor, environment, name }: AttachOptions): void {
  if (anchor === undefined) {
    environment.log.warn(
      { volume: name },
      'no anchor: any rollback of this volume goes unnoticed; development only',
    );
  } else if (!anchor.capabilities.production) {
    const { kind } = anchor.capabilities;
    environment.log.warn(
      { volume: name, anchor: kind },
      'this anchor can be turned back by the host; development only',
    );
  }
}

/** The first free epoch after `after`. Gaps are fine; nobody else ever has the same one. */
async function claimEpoch(located: LocatedVolume, after: number, options: AttachOptions): Promise<number> {
  const { objects, ring } = located;
  let epoch = after + 1;
  for (let attempt = 0; attempt < CLAIM_ATTEMPTS; attempt += 1) {
    const claim = encodeClaim(ring.volume, epoch, options.environment.random(32));
    if ((await objects.claim(claimName(epoch), claim)) === 'stored') return epoch;
    epoch += 2 ** Math.min(attempt, 20);
  }
  throw new PosternError('ERR_VOLUME_LIMIT', `no free epoch after ${after}`);
}

/** Claims of older epochs have done their work. */
async function forgetClaims({ objects }: LocatedVolume, epoch: number): Promise<void> {
  try {
    const page = await objects.list(CLAIM_PREFIX);
    for (const { key } of page.objects) if (key < claimName(epoch)) await objects.delete(key);
  } catch (error) {
    // They take 80 bytes each; the next attach tries again.
    if (!(error instanceof PosternError)) throw error;
  }
}

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

function assemble(
  options: AttachOptions,
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
  const committer = new Committer(head, nextSegment, {
    ...base,
    epoch,
    onSettled: (commit) => {
      checkpointer.onSettled(commit);
      void repacker.run();
    },
  });
  const reaper = new Reaper(objects, environment, limits.deleteGraceMs, health);
  const checkpointer = new Checkpointer(checkpoint, tail.length, {
    ...base,
    frames,
    committer,
    reaper,
    anchored,
  });
  const checkpointSettled = (): Promise<void> => checkpointer.settled();
  const writer = new BlockWriter({ ...base, reader, committer, checkpointSettled });
  const room = (): Promise<void> => writer.room();
  const repacker = new Repacker({ ...base, frames, checkpointer, room, wrote: () => writer.wrote() });
  const anchoring = startAnchoring(options, limits, located, health, committer, waits);
  committer.anchorWith(anchoring);
  const anchoredPoint = (): CommitPoint => anchoring.anchored;
  const own = { ...base, header, epoch, attachedFrom: head.point, firstSegment: nextSegment };
  const work = { frames, reader, writer, committer, checkpointer, reaper, repacker };
  const parts = { ...own, ...work, anchoredPoint, anchored };
  return new Volume(head.sizeBytes, parts);
}

function startAnchoring(
  options: AttachOptions,
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
