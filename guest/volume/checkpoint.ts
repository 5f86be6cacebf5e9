import { PosternError } from '../../shared/errors.ts';
import type { VolumeEnvironment } from './environment.ts';
import type { Committer, SettledCommit } from './flush.ts';
import { type EntryDecision, indexChanges, LiveCounts, MovedPages, tableChanges } from './fold.ts';
import type { FrameReader } from './frames.ts';
import type { Health } from './health.ts';
import { type PageChanges, rebuild } from './index/rebuild.ts';
import { parsePageLba } from './index/tree.ts';
import type { BaseState, VolumeIndex } from './index/volume-index.ts';
import type { KeyRing } from './keyring.ts';
import { FREED_MAX, TABLE_SEGMENTS_MAX, type VolumeLimits } from './limits.ts';
import { loadManifest, Manifest, storeManifest } from './manifest.ts';
import type { VolumeObjects } from './objects.ts';
import { PageWriter } from './page-writer.ts';
import type { Reaper } from './reaper.ts';
import type { Checkpoint, FreedObject, NumberedSegment, Snapshot } from './record.ts';
import { blockCount, locationSegment, type SegmentEntry } from './segment.ts';

/** Overlay holes after which a checkpoint is due. */
const CHECKPOINT_TRIMS = 8192;
/** Segments that are remembered for repacking; those past it are found by the next sweep. */
const CANDIDATES_MAX = 4096;

/** What a checkpoint does besides folding in what was committed. */
export interface CheckpointWish {
  /** Look at every entry of the segment table, not only at those that changed. */
  readonly sweep?: boolean;
  readonly snapshot?: { readonly id: Buffer; readonly name: string; readonly sizeBytes: number };
  readonly dropSnapshot?: Buffer;
  /** Make this snapshot's state the volume's. Nothing may be written meanwhile. */
  readonly restore?: { readonly snapshot: Snapshot; readonly token: Buffer | undefined };
}

interface Wanted {
  readonly wish: CheckpointWish;
  /** The first commit that holds all that was written before the wish. */
  readonly fromSeq: number;
  readonly done: PromiseWithResolvers<void>;
}

export interface CheckpointerParts {
  readonly objects: VolumeObjects;
  readonly ring: KeyRing;
  readonly environment: VolumeEnvironment;
  readonly limits: VolumeLimits;
  readonly index: VolumeIndex;
  readonly frames: FrameReader;
  readonly committer: Committer;
  readonly health: Health;
  readonly reaper: Reaper;
  /** Resolves when the anchor holds that commit or a later one. */
  anchored(seq: number): Promise<void>;
}

/** Folds what was committed into pages, so that attaching reads a short tail, and frees what nothing refers to. */
export class Checkpointer {
  readonly #parts: CheckpointerParts;
  readonly #manifests = new Map<string, Manifest>();
  #movedNext = new MovedPages();
  #snapshots: readonly Snapshot[];
  #tailCommits: number;
  #running: Promise<void> | undefined;
  #wanted: Wanted[] = [];
  #needsSweep = false;
  readonly candidates = new Set<number>();
  checkpointCount = 0;

  constructor(checkpoint: Checkpoint, tailCommits: number, parts: CheckpointerParts) {
    this.#snapshots = checkpoint.snapshots;
    this.#tailCommits = tailCommits;
    this.#parts = parts;
    parts.health.onFailure((error) => {
      for (const { done } of this.#wanted) done.reject(error);
      this.#wanted = [];
    });
  }

  get snapshots(): readonly Snapshot[] {
    return this.#snapshots;
  }

  get tailCommits(): number {
    return this.#tailCommits;
  }

  /** Resolves when the checkpoint under way, if any, has ended. */
  async settled(): Promise<void> {
    await this.#running;
  }

  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  /** A checkpoint of all that is written before this call. */
  request(wish: CheckpointWish = {}): Promise<void> {
    this.#parts.health.check();
    const done = Promise.withResolvers<void>();
    done.promise.catch(() => undefined);
    this.#wanted.push({ wish, fromSeq: this.#parts.committer.nextSeq, done });
    if (this.#running === undefined) void this.#parts.committer.commit({});
    return done.promise;
  }

  /** A page that is to be written anew with the next checkpoint. */
  movePage(level: number, page: number): void {
    this.#movedNext.add(level, page);
  }

  /** The index is exactly as of this commit: the moment at which a checkpoint may begin. */
  onSettled(commit: SettledCommit): void {
    if (commit.extras.checkpoint === undefined) this.#tailCommits += 1;
    if (this.#running !== undefined || this.#parts.index.isFolding) return;
    const first = this.#wanted[0];
    const wanted = first !== undefined && first.fromSeq <= commit.seq ? this.#wanted.shift() : undefined;
    if (wanted === undefined && !this.#isDue()) return;
    const work = this.#run(commit.seq, wanted?.wish ?? {});
    this.#running = work.then(
      () => wanted?.done.resolve(),
      (error: unknown) => {
        wanted?.done.reject(error);
        this.#parts.health.fail(error);
      },
    );
    const next = (): void => {
      this.#running = undefined;
      const isServing = this.#parts.health.state === 'serving';
      if (this.#wanted.length > 0 && isServing) void this.#parts.committer.commit({});
    };
    this.#running.then(next, next);
  }

  #isDue(): boolean {
    const { index, limits } = this.#parts;
    return (
      this.#tailCommits >= limits.checkpointCommits ||
      index.current.blocks.size >= limits.checkpointBlocks ||
      index.current.trims.count >= CHECKPOINT_TRIMS
    );
  }

  async #run(coversSeq: number, wish: CheckpointWish): Promise<void> {
    const { index, committer, reaper } = this.#parts;
    // Before anything is awaited: the index stands at `coversSeq` now.
    const overlay = index.beginFold();
    const tailBefore = this.#tailCommits;
    if (wish.restore && (overlay.blocks.size > 0 || overlay.trims.count > 0)) {
      throw new RangeError('blocks were written while a snapshot was restored');
    }
    const manifests = await this.#loadManifests(wish);
    const live = new LiveCounts();
    const moved = this.#movedNext;
    this.#movedNext = new MovedPages();
    const indexPart = wish.restore
      ? { root: wish.restore.snapshot.indexRoot, segments: [] }
      : await this.#write('index', indexChanges(overlay, moved, live), (place) => live.add(place, -1));
    const added = new Map(overlay.segments);
    for (const { number, entry } of indexPart.segments) added.set(number, entry);
    const freed: FreedObject[] = [];
    const decide = this.#decision(manifests, freed, wish);
    const table = await this.#writeTable(added, live, decide, freed, wish);
    const base = index.baseOf(indexPart.root, table.root, table.segments);
    const snapshots = await this.#nextSnapshots(wish, base, coversSeq, freed);
    const checkpoint: Checkpoint = {
      coversSeq,
      indexRoot: indexPart.root,
      tableRoot: table.root,
      tableSegments: table.segments,
      freed: [...reaper.waiting, ...freed],
      snapshots,
    };
    await this.#commit(checkpoint, wish);
    index.settleFold(base);
    this.#snapshots = snapshots;
    this.#tailCommits -= tailBefore;
    this.checkpointCount += 1;
    const head = await committer.head();
    await this.#parts.anchored(head.checkpointSeq);
    reaper.add(freed);
  }

  async #commit(checkpoint: Checkpoint, wish: CheckpointWish): Promise<void> {
    const { restore } = wish;
    const extras = restore
      ? {
          checkpoint,
          sizeBytes: restore.snapshot.sizeBytes,
          ...(restore.token ? { restoreToken: restore.token } : {}),
        }
      : { checkpoint };
    await this.#parts.committer.commit(extras);
  }

  async #write(
    kind: 'index' | 'table',
    changes: PageChanges,
    release: (place: number) => void,
  ): Promise<{ readonly root: number; readonly segments: readonly NumberedSegment[] }> {
    const { index, environment } = this.#parts;
    const writer = new PageWriter(kind, {
      ...this.#parts,
      pages: index.pages,
      pause: () => environment.pause(),
    });
    const emit = (level: number, page: number, bytes: Buffer) => writer.emit(level, page, bytes);
    const root = await rebuild(index.base[kind], changes, { emit, release });
    return { root, segments: await writer.finish() };
  }

  async #writeTable(
    added: ReadonlyMap<number, SegmentEntry>,
    live: LiveCounts,
    decide: EntryDecision,
    freed: FreedObject[],
    wish: CheckpointWish,
  ): Promise<{ readonly root: number; readonly segments: readonly NumberedSegment[] }> {
    const { base } = this.#parts.index;
    const own = new Map(base.tableSegments);
    const sweep =
      this.#needsSweep ||
      wish.sweep === true ||
      wish.restore !== undefined ||
      wish.dropSnapshot !== undefined;
    this.#needsSweep = false;
    const moved = await this.#sparseTablePages(own);
    const numbers = [...live.changes.keys(), ...added.keys()];
    const changes = tableChanges(numbers, added, live, decide, sweep, moved);
    const written = await this.#write('table', changes, (place) => {
      const number = locationSegment(place);
      const entry = own.get(number);
      if (entry === undefined)
        throw new RangeError(`table page in segment ${number}, which is none of the table's`);
      own.set(number, { ...entry, liveBlocks: entry.liveBlocks - 1 });
    });
    const segments: NumberedSegment[] = [];
    for (const [number, entry] of own) {
      if (entry.liveBlocks > 0) segments.push({ number, entry });
      else freed.push({ kind: 'segment', id: entry.id });
    }
    segments.push(...written.segments);
    if (segments.length > TABLE_SEGMENTS_MAX) {
      throw new PosternError('ERR_VOLUME_LIMIT', `a segment table in ${segments.length} segments`);
    }
    return { root: written.root, segments };
  }

  /** Pages of the sparser half of the table's segments, once there are many, and of those under older keys. */
  async #sparseTablePages(own: ReadonlyMap<number, SegmentEntry>): Promise<MovedPages> {
    const moved = new MovedPages();
    const { table } = this.#parts.index.base;
    const { generation } = this.#parts.committer;
    const half = own.size < TABLE_SEGMENTS_MAX / 2 ? 0 : own.size / 2;
    const sparsest = [...own].sort(([, a], [, b]) => a.liveBlocks - b.liveBlocks).slice(0, half);
    const old = [...own].filter(([, entry]) => entry.generation < generation);
    for (const [number] of [...sparsest, ...old]) {
      const { spans } = await this.#parts.frames.directory(number);
      for (const { lba } of spans) {
        const at = parsePageLba('table', lba);
        if (at === undefined) continue;
        const place = await table.placeOf(at.level, at.page);
        if (place !== 0 && locationSegment(place) === number) moved.add(at.level, at.page);
      }
    }
    return moved;
  }

  /** What becomes of an entry: freed when nothing refers to it, remembered when little does. */
  #decision(manifests: readonly Manifest[], freed: FreedObject[], wish: CheckpointWish): EntryDecision {
    const { limits, reaper, frames, committer } = this.#parts;
    const room = FREED_MAX - reaper.waiting.length - 2 * TABLE_SEGMENTS_MAX;
    const restored = wish.restore && this.#manifests.get(wish.restore.snapshot.id.toString('hex'));
    return (number, before) => {
      const entry = restored ? { ...before, liveBlocks: restored.liveBlocks(number) } : before;
      const isPinned = manifests.some((manifest) => manifest.liveBlocks(number) > 0);
      if (entry.liveBlocks === 0 && !isPinned) {
        if (freed.length >= room) {
          this.#needsSweep = true;
          return entry;
        }
        freed.push(freedObject(entry));
        frames.forget(number);
        this.candidates.delete(number);
        return undefined;
      }
      const isSparse = entry.liveBlocks < limits.repackBelow * blockCount(entry);
      const isOld = entry.generation < committer.generation;
      if ((isSparse || isOld) && entry.liveBlocks > 0 && !isPinned && this.candidates.size < CANDIDATES_MAX) {
        this.candidates.add(number);
      }
      return entry;
    };
  }

  async #loadManifests(wish: CheckpointWish): Promise<Manifest[]> {
    const { objects, ring } = this.#parts;
    const manifests: Manifest[] = [];
    for (const { id, manifest: segments } of this.#snapshots) {
      if (wish.dropSnapshot?.equals(id)) continue;
      const key = id.toString('hex');
      const manifest = this.#manifests.get(key) ?? (await loadManifest(segments, objects, ring));
      this.#manifests.set(key, manifest);
      manifests.push(manifest);
    }
    return manifests;
  }

  async #nextSnapshots(
    wish: CheckpointWish,
    base: BaseState,
    seq: number,
    freed: FreedObject[],
  ): Promise<readonly Snapshot[]> {
    const { committer, environment } = this.#parts;
    const { snapshot, dropSnapshot } = wish;
    const kept = this.#snapshots.filter(({ id, manifest }) => {
      if (!dropSnapshot?.equals(id)) return true;
      for (const { entry } of manifest) freed.push({ kind: 'segment', id: entry.id });
      this.#manifests.delete(id.toString('hex'));
      return false;
    });
    if (snapshot === undefined) return kept;
    const manifest = await Manifest.of(base.table, committer.nextSegment);
    this.#manifests.set(snapshot.id.toString('hex'), manifest);
    const segments = await storeManifest(manifest, { ...this.#parts, pause: () => environment.pause() });
    const timeMs = environment.dateMs();
    return [...kept, { ...snapshot, timeMs, seq, indexRoot: base.index.root, manifest: segments }];
  }
}

function freedObject(entry: SegmentEntry): FreedObject {
  if (entry.kind === 'inline') return { kind: 'commit', epoch: entry.epoch, seq: entry.seq };
  return { kind: 'segment', id: entry.id };
}
