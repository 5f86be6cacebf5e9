import { isPosternError, PosternError } from '../../shared/errors.ts';
import type { Anchor, AnchorHead, AnchorVolume } from '../counter/anchor.ts';
import { attemptAnchor } from './anchoring.ts';
import type { CommitPoint } from './commit.ts';
import type { VolumeAccess } from './create.ts';
import { decodeVolumeHeader, type FlushMode, HEADER_BYTES, type VolumeHeader } from './header.ts';
import { KeyRing } from './keyring.ts';
import { DEFAULT_LIMITS, type VolumeLimits } from './limits.ts';
import { COMMIT_PREFIX, deletionName, HEADER_NAME, parseCommitName } from './names.ts';
import { VolumeObjects } from './objects.ts';
import { CommitReader, isChained, type OpenedCommit } from './tail.ts';

/** Commits that mode `none` follows from the newest that a LIST names. */
const UNANCHORED_FOLLOW_MAX = 16_384;

/** A volume's newest state, found and verified, not yet attached. */
export interface LocatedVolume {
  readonly header: VolumeHeader;
  readonly objects: VolumeObjects;
  readonly ring: KeyRing;
  readonly commits: CommitReader;
  /** What the anchor holds. In mode `none`: what the store shows. */
  readonly anchored: OpenedCommit;
  /** Commits that are stored, verify as its successors and are not anchored, oldest first. */
  readonly rolled: readonly OpenedCommit[];
}

export function headOf({ anchored, rolled }: LocatedVolume): OpenedCommit {
  return rolled.at(-1) ?? anchored;
}

/** @throws ERR_VOLUME_DELETED when somebody took the volume to delete it */
export function assertKept(located: LocatedVolume): void {
  if (headOf(located).record.deletion) throw deleted(located.header.name);
}

function deleted(name: string, cause?: PosternError): PosternError {
  const text = `volume ${name} is being deleted: 'postern volume delete ${name} --yes' finishes that`;
  return new PosternError('ERR_VOLUME_DELETED', text, { cause });
}

/**
 * Finds the state to go on from: what the anchor vouches for, and what verifies as following from it.
 * @throws ERR_VOLUME_NOT_FOUND, ERR_VOLUME_DELETED, ERR_VOLUME_KEY, ERR_ANCHOR_UNKNOWN, ERR_VOLUME_MISSING, ERR_VOLUME_STALE and more
 */
export async function locateVolume(access: VolumeAccess): Promise<LocatedVolume> {
  const limits = access.limits ?? DEFAULT_LIMITS;
  const objects = new VolumeObjects(access.store, access.prefix, limits, access.environment);
  const headerBytes = await objects.get(HEADER_NAME, { offset: 0, length: HEADER_BYTES });
  if (headerBytes === undefined) {
    throw new PosternError(
      'ERR_VOLUME_NOT_FOUND',
      `no volume ${access.name} in this store; 'postern volume create ${access.name}' makes one`,
    );
  }
  const header = decodeVolumeHeader(headerBytes);
  if (header.name !== access.name) {
    throw new PosternError(
      'ERR_VOLUME_KEY',
      `the store shows volume ${header.name} in place of ${access.name}`,
    );
  }
  const ring = new KeyRing(header, headerBytes, await access.keyProvider.rootKey(header.salt), objects);
  const commits = new CommitReader(objects, ring);
  try {
    return await locateHead({ header, objects, ring, commits }, access, limits);
  } catch (error) {
    // Once its keys are gone, nothing that is proven says why; what is found here changes no more than the words.
    if (!isPosternError(error) || error.code === 'ERR_VOLUME_UNAVAILABLE') throw error;
    if ((await objects.sizeOf(deletionName(header.volumeId))) === undefined) throw error;
    throw deleted(header.name, error);
  }
}

async function locateHead(
  found: Omit<LocatedVolume, 'anchored' | 'rolled'>,
  access: VolumeAccess,
  limits: VolumeLimits,
): Promise<LocatedVolume> {
  const { header, objects, ring, commits } = found;
  if (header.mode.kind === 'none') return { ...found, ...(await newestStored(objects, commits, ring)) };
  if (access.anchor === undefined) {
    throw new PosternError('ERR_ANCHOR_UNKNOWN', `volume ${access.name} needs its anchor`);
  }
  const anchored = await anchoredCommit(access.anchor, found, access, limits);
  const rolled = await rollForward(commits, ring, anchored, rollLimit(header.mode, limits), access);
  return { ...found, anchored, rolled };
}

async function anchoredCommit(
  anchor: Anchor,
  { header, commits }: Pick<LocatedVolume, 'header' | 'commits'>,
  access: VolumeAccess,
  limits: VolumeLimits,
): Promise<OpenedCommit> {
  // The signing seed is in the wrap, and which generation's wrap to open is known with the commit: `read` needs no signature.
  const known = { anchorId: header.anchorId, signingSeed: Buffer.alloc(0) };
  for (let sought: CommitPoint | undefined; ; ) {
    const head = await readAnchor(anchor, known, access, limits);
    const point = { epoch: head.epoch, seq: head.seq, hash: head.commitHash };
    try {
      return await commits.need(point);
    } catch (error) {
      // An instance that still runs may have gone on, and freed this commit, between the anchor's answer and the store's.
      const hasMoved = sought === undefined || !sought.hash.equals(point.hash);
      if (!isPosternError(error, 'ERR_VOLUME_MISSING') || !hasMoved) throw error;
      sought = point;
    }
  }
}

/** @throws ERR_ANCHOR_UNKNOWN, ERR_ANCHOR_UNAVAILABLE after the deadline */
async function readAnchor(
  anchor: Anchor,
  known: AnchorVolume,
  { environment, name }: VolumeAccess,
  limits: VolumeLimits,
): Promise<AnchorHead> {
  const endMs = environment.clock.nowMs() + limits.outageTimeoutMs;
  for (let pauseMs = 50; ; pauseMs = Math.min(2 * pauseMs, 2000)) {
    try {
      const head = await attemptAnchor(environment, limits, (signal) => anchor.read(known, { signal }));
      if (head !== undefined) return head;
      throw new PosternError('ERR_ANCHOR_UNKNOWN', `the anchor does not know volume ${name}`);
    } catch (error) {
      const isWorthMore = isPosternError(error, 'ERR_ANCHOR_UNAVAILABLE');
      if (!isWorthMore || environment.clock.nowMs() + pauseMs >= endMs) throw error;
      await environment.clock.sleep(pauseMs);
    }
  }
}

/** How many commits may be stored and not anchored: those in the pipeline, and what `lazy` may owe. */
function rollLimit(mode: FlushMode, limits: VolumeLimits): number {
  return limits.pipelineCommits + (mode.kind === 'lazy' ? mode.maxCommits : 0);
}

async function rollForward(
  commits: CommitReader,
  ring: KeyRing,
  from: OpenedCommit,
  limit: number,
  access: VolumeAccess,
): Promise<OpenedCommit[]> {
  const rolled: OpenedCommit[] = [];
  for (let last = from; rolled.length < limit; ) {
    const { epoch, seq } = last.point;
    const next = await openNext(commits, epoch, seq + 1, access);
    if (next === undefined || !isChained(last, next, ring)) break;
    rolled.push(next);
    last = next;
  }
  return rolled;
}

/** A commit that was never acknowledged may be lost; one that does not verify is as good as none. */
async function openNext(
  commits: CommitReader,
  epoch: number,
  seq: number,
  access: VolumeAccess,
): Promise<OpenedCommit | undefined> {
  try {
    return await commits.open(epoch, seq);
  } catch (error) {
    if (!(error instanceof PosternError) || error.code === 'ERR_VOLUME_UNAVAILABLE') throw error;
    access.environment.log.warn(
      { epoch, seq, code: error.code },
      'a commit past the anchor does not verify; left out',
    );
    return undefined;
  }
}

/** Mode `none`: the newest chain that a LIST leads to. Whoever can change the store can turn it back. */
async function newestStored(
  objects: VolumeObjects,
  commits: CommitReader,
  ring: KeyRing,
): Promise<{ readonly anchored: OpenedCommit; readonly rolled: readonly OpenedCommit[] }> {
  const names: { readonly epoch: number; readonly seq: number }[] = [];
  for (let after: string | undefined; ; ) {
    const page = await objects.list(COMMIT_PREFIX, after);
    for (const { key } of page.objects) {
      const name = parseCommitName(key);
      if (name !== undefined) names.push(name);
    }
    if (!page.truncated) break;
    after = page.objects.at(-1)?.key;
  }
  for (const { epoch, seq } of names.reverse()) {
    const start = await commits.open(epoch, seq).catch(() => undefined);
    if (start === undefined) continue;
    let anchored = start;
    for (let count = 0; count < UNANCHORED_FOLLOW_MAX; count += 1) {
      const next = await commits.open(epoch, anchored.point.seq + 1).catch(() => undefined);
      if (next === undefined || !isChained(anchored, next, ring)) break;
      anchored = next;
    }
    return { anchored, rolled: [] };
  }
  throw new PosternError('ERR_VOLUME_MISSING', 'the store shows no commit of this volume');
}
