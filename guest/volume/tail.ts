import { PosternError } from '../../shared/errors.ts';
import type { ObjectPage } from '../../shared/objects/store.ts';
import {
  COMMIT_HEADER_BYTES,
  type CommitHeader,
  type CommitPoint,
  decodeHeader,
  openCommit,
  sealedCommitBytes,
} from './commit.ts';
import { append, commitLeaf, equalFrontiers } from './frontier.ts';
import type { KeyRing } from './keyring.ts';
import { TAIL_MAX_COMMITS } from './limits.ts';
import { COMMIT_PREFIX, commitName, parseCommitName } from './names.ts';
import type { VolumeObjects } from './objects.ts';
import { type CommitRecord, checkGenerations } from './record.ts';
import { sha256 } from './seal.ts';
import { Semaphore } from './semaphore.ts';

/** First bytes of a commit object that are asked for: the whole record, but for the largest. */
const FRONT_BYTES = 64 * 1024;
const PARALLEL_GETS = 16;
/** Names that an attach reads of a LIST, which is only a hint of sizes. */
const LIST_PAGES = 8;

export interface OpenedCommit {
  readonly point: CommitPoint;
  readonly header: CommitHeader;
  readonly record: CommitRecord;
}

/** Reads commits, from the store's word for nothing but their bytes. */
export class CommitReader {
  readonly #objects: VolumeObjects;
  readonly #ring: KeyRing;
  readonly #sizes = new Map<string, number>();
  readonly #fetched = new Map<string, Promise<OpenedCommit | undefined>>();

  constructor(objects: VolumeObjects, ring: KeyRing) {
    this.#objects = objects;
    this.#ring = ring;
  }

  /** Undefined when the store has no such commit. @throws ERR_VOLUME_CORRUPT when it is not one of this volume. */
  async open(epoch: number, seq: number): Promise<OpenedCommit | undefined> {
    return this.#fetched.get(commitName(epoch, seq)) ?? this.#read(epoch, seq);
  }

  async #read(epoch: number, seq: number): Promise<OpenedCommit | undefined> {
    const name = commitName(epoch, seq);
    const bytes = await this.#front(name, epoch, seq);
    if (bytes === undefined) return undefined;
    const header = decodeHeader(bytes, epoch, seq);
    const keys = await this.#ring.open(header.generation);
    const record = openCommit(keys, this.#ring.volume, header, bytes);
    checkGenerations(record, header.generation, name);
    return { point: { epoch, seq, hash: sha256(bytes) }, header, record };
  }

  /** As `open`, where the anchor or a later commit vouches for the hash. */
  async need(point: CommitPoint): Promise<OpenedCommit> {
    const name = commitName(point.epoch, point.seq);
    const opened = await this.open(point.epoch, point.seq);
    if (opened === undefined) {
      throw new PosternError('ERR_VOLUME_MISSING', `the store lacks ${name}, which was acknowledged`);
    }
    if (!opened.point.hash.equals(point.hash)) {
      throw new PosternError(
        'ERR_VOLUME_STALE',
        `${name} is not the commit that was acknowledged under that name`,
      );
    }
    return opened;
  }

  /**
   * The commits from the checkpoint's (exclusive) to `head`, oldest first. Each is held to the hash that its successor
   * names, down from `head`.
   */
  async tail(head: OpenedCommit): Promise<OpenedCommit[]> {
    await this.#prefetch(head);
    const tail: OpenedCommit[] = [];
    let covers = head.record.checkpoint?.coversSeq;
    if (covers === head.point.seq) return tail;
    for (let commit = head; ; commit = await this.#before(commit)) {
      if (tail.length >= TAIL_MAX_COMMITS) throw tooLong();
      if (commit.point.seq === head.record.checkpointSeq) covers = coverOf(commit);
      tail.push(commit);
      // The commit that the checkpoint covers last may be gone already.
      if (covers !== undefined && commit.point.seq - 1 <= covers) break;
    }
    this.#fetched.clear();
    return tail.reverse();
  }

  /** The commit that `commit` names as the one before it. */
  async #before(commit: OpenedCommit): Promise<OpenedCommit> {
    const { prevEpoch: epoch, prevHash: hash } = commit.record;
    const before = await this.need({ epoch, seq: commit.point.seq - 1, hash });
    if (!isChained(before, commit, this.#ring)) {
      throw new PosternError('ERR_VOLUME_CORRUPT', `commit ${commit.point.seq} does not follow from its log`);
    }
    return before;
  }

  /** Asks for the whole tail at once; the walk then finds most of it at hand. */
  async #prefetch(head: OpenedCommit): Promise<void> {
    const { checkpointEpoch, checkpointSeq } = head.record;
    const carrier =
      checkpointSeq === head.point.seq
        ? head
        : await this.open(checkpointEpoch, checkpointSeq).catch(() => undefined);
    const coversSeq = carrier?.record.checkpoint?.coversSeq ?? checkpointSeq;
    const atOnce = new Semaphore(PARALLEL_GETS);
    // The commit that is covered last is of the carrier's own epoch, so that the tail begins right after its name.
    const after = commitName(checkpointEpoch, coversSeq);
    for (const { epoch, seq, name } of await this.#listed(after, head.point.epoch)) {
      if (seq <= coversSeq || seq >= head.point.seq) continue;
      // What a LIST says proves nothing: an object that does not open is left to the walk, should it need it.
      const opened = atOnce.run(() => this.#read(epoch, seq)).catch(() => undefined);
      this.#fetched.set(name, opened);
    }
    for (const [name, opened] of this.#fetched) {
      if ((await opened) === undefined) this.#fetched.delete(name);
    }
    this.#sizes.clear();
  }

  async #listed(start: string, lastEpoch: number): Promise<{ epoch: number; seq: number; name: string }[]> {
    const found: { epoch: number; seq: number; name: string }[] = [];
    let after: string | undefined = start;
    for (let pages = 0; pages < LIST_PAGES; pages += 1) {
      const page: ObjectPage | undefined = await this.#objects
        .list(COMMIT_PREFIX, after)
        .catch(() => undefined);
      for (const { key: name, sizeBytes } of page?.objects ?? []) {
        const commit = parseCommitName(name);
        if (commit === undefined || commit.epoch > lastEpoch) continue;
        this.#sizes.set(name, sizeBytes);
        found.push({ ...commit, name });
      }
      if (!page?.truncated) break;
      after = page.objects.at(-1)?.key;
    }
    return found;
  }

  /** Exactly the header and the sealed record, in one GET where the size is known. */
  async #front(name: string, epoch: number, seq: number): Promise<Buffer | undefined> {
    const size = this.#sizes.get(name) ?? (await this.#objects.sizeOf(name));
    if (size === undefined) return undefined;
    if (size < COMMIT_HEADER_BYTES) {
      throw new PosternError('ERR_VOLUME_CORRUPT', `${name} has ${size} bytes`);
    }
    const first = await this.#objects.get(name, { offset: 0, length: Math.min(size, FRONT_BYTES) });
    if (first === undefined) return undefined;
    const due = sealedCommitBytes(decodeHeader(first, epoch, seq));
    if (due > size) throw new PosternError('ERR_VOLUME_CORRUPT', `${name} is shorter than its record`);
    if (due <= first.length) return first.subarray(0, due);
    return this.#objects.get(name, { offset: 0, length: due });
  }
}

/** True when `after` names `before`, and continues its log. */
export function isChained(before: OpenedCommit, after: OpenedCommit, ring: KeyRing): boolean {
  const { epoch, seq, hash } = before.point;
  const { record, point } = after;
  if (point.seq !== seq + 1 || record.prevEpoch !== epoch || !record.prevHash.equals(hash)) return false;
  const log = append(before.record.frontier, commitLeaf(ring.volume, epoch, seq, hash));
  return equalFrontiers(log, record.frontier);
}

function coverOf(commit: OpenedCommit): number {
  const { checkpoint } = commit.record;
  if (checkpoint === undefined) {
    throw new PosternError('ERR_VOLUME_CORRUPT', `commit ${commit.point.seq} carries no checkpoint`);
  }
  return checkpoint.coversSeq;
}

function tooLong(): PosternError {
  return new PosternError('ERR_VOLUME_LIMIT', `over ${TAIL_MAX_COMMITS} commits since the last checkpoint`);
}
