import { PosternError } from '../../shared/errors.ts';
import { assemble } from './assemble.ts';
import { encodeClaim } from './claim.ts';
import type { VolumeAccess } from './create.ts';
import type { Volume } from './engine.ts';
import { FenceWatch } from './fence-watch.ts';
import { checkpointOf } from './inspect.ts';
import { checkLimits, DEFAULT_LIMITS, type VolumeLimits } from './limits.ts';
import { assertKept, headOf, type LocatedVolume, locateVolume } from './locate.ts';
import { CLAIM_PREFIX, claimName, commitName } from './names.ts';
import { NONCE_BYTES } from './record.ts';

/** How often a takeover meets progress of the instance that it is to shut out. */
const TAKEOVER_ATTEMPTS = 16;
/** Time for that instance to run into its blocked name. */
const TAKEOVER_PAUSE_MS = 100;
/** No instance gets further ahead than this between two looks. */
const BLOCK_AHEAD_MAX = 65_536;
/** Epochs that one attach tries to claim, each out of twice as many as the last. */
const CLAIM_ATTEMPTS = 32;
/** How far ahead it looks first, and at most: some 2^24 of 2^48 epochs an attach, in the worst case. */
const CLAIM_FIRST_REACH = 4;
const CLAIM_MAX_REACH = 2 ** 24;

export interface AttachOptions extends VolumeAccess {
  /** Take a volume over that was not detached: after a crash, or from an instance that still runs and is shut out. */
  readonly takeover?: boolean;
  /** Make it the last attach of all, to delete the volume: this or another attach wins, and the loser is refused. */
  readonly forDeletion?: boolean;
}

/**
 * Attaches a volume: finds the newest acknowledged state, claims an epoch, commits random bytes and has them anchored.
 * Only then, when no older instance can acknowledge anything any more, is it given out.
 * @throws ERR_VOLUME_IN_USE without `takeover`, ERR_VOLUME_DELETED when its deletion has begun, ERR_VOLUME_FENCED when another attach was faster, and what locating throws
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
  assertKept(located);
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
    const nonce = options.environment.random(NONCE_BYTES);
    await committer.commit({ nonce, deletion: options.forDeletion === true });
    await volume.parts.anchored(seq);
  } catch (error) {
    volume.close();
    throw error;
  }
  watchFence(volume, located, options, limits);
  reaper.add(checkpoint.freed);
  void forgetClaims(located, epoch);
  return volume;
}

function watchFence(
  { parts }: Volume,
  { header, ring }: LocatedVolume,
  { anchor, environment }: AttachOptions,
  limits: VolumeLimits,
): void {
  if (anchor === undefined || header.mode.kind === 'none') return;
  const volume = { anchorId: header.anchorId, signingSeed: ring.volume.anchorSeed };
  const { epoch, health } = parts;
  new FenceWatch({ anchor, volume, epoch, environment, limits, health });
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

/**
 * A free epoch after `after`: the next, where it is free. Attaches that died after their claim have taken some, one each, and
 * nothing but an attach that succeeds clears them away; whoever looks in order would run out of attempts one day.
 */
async function claimEpoch(located: LocatedVolume, after: number, options: AttachOptions): Promise<number> {
  const { objects, ring } = located;
  const { random, jitter } = options.environment;
  let epoch = after + 1;
  let reach = CLAIM_FIRST_REACH;
  for (let attempt = 0; attempt < CLAIM_ATTEMPTS; attempt += 1) {
    const claim = encodeClaim(ring.volume, epoch, random(32));
    if ((await objects.claim(claimName(epoch), claim)) === 'stored') return epoch;
    epoch = after + 1 + Math.floor(jitter() * reach);
    reach = Math.min(2 * reach, CLAIM_MAX_REACH);
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
