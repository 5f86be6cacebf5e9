import type { Committer, SettledCommit } from './flush.ts';
import { indexChanges, LiveCounts, MovedPages } from './fold.ts';
import type { Health } from './health.ts';
import type { BaseState } from './index/volume-index.ts';
import { TAIL_MAX_COMMITS } from './limits.ts';
import { loadManifest, Manifest, storeManifest } from './manifest.ts';
import type { Checkpoint, FreedObject, Snapshot } from './record.ts';
import { TableFold, type TableFoldParts, writePages } from './table-fold.ts';

/** Overlay holes after which a checkpoint is due. */
const CHECKPOINT_TRIMS = 8192;
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

export interface CheckpointerParts extends TableFoldParts {
  readonly committer: Committer;
  readonly health: Health;
  /** Resolves when the anchor holds that commit or a later one. */
  anchored(seq: number): Promise<void>;
}

/** Folds what was committed into pages, so that attaching reads a short tail, and frees what nothing refers to. */
export class Checkpointer {
  readonly #parts: CheckpointerParts;
  readonly #table: TableFold;
  readonly #manifests = new Map<string, Manifest>();
  #movedNext = new MovedPages();
  #snapshots: readonly Snapshot[];
  #tailCommits: number;
  #coversSeq: number;
  #running: Promise<void> | undefined;
  #wanted: Wanted[] = [];
  /** Of snapshots that are asked for and not made yet. */
  readonly #wantedNames = new Set<string>();
  checkpointCount = 0;

  constructor(checkpoint: Checkpoint, tailCommits: number, parts: CheckpointerParts) {
    this.#snapshots = checkpoint.snapshots;
    this.#coversSeq = checkpoint.coversSeq;
    this.#tailCommits = tailCommits;
    this.#parts = parts;
    this.#table = new TableFold(parts);
    parts.health.onFailure((error) => {
      for (const { done } of this.#wanted) done.reject(error);
      this.#wanted = [];
    });
  }

  /** Segments that are worth repacking. */
  get candidates(): Set<number> {
    return this.#table.candidates;
  }

  /** The commit whose state the newest checkpoint holds. */
  get coversSeq(): number {
    return this.#coversSeq;
  }

  get snapshots(): readonly Snapshot[] {
    return this.#snapshots;
  }

  /** Snapshots that are being made count. */
  get snapshotCount(): number {
    return this.#snapshots.length + this.#wantedNames.size;
  }

  /** Whether a snapshot has that name, or is to have it. */
  isTaken(name: string): boolean {
    return this.#wantedNames.has(name) || this.#snapshots.some((snapshot) => snapshot.name === name);
  }

  get tailCommits(): number {
    return this.#tailCommits;
  }

  /** Resolves when the checkpoint under way, if any, has ended. */
  async settled(): Promise<void> {
    await this.#running;
  }

  /** A checkpoint is under way, and so many commits came meanwhile that they have to wait for it. */
  get isBehind(): boolean {
    return this.#running !== undefined && this.#tailCommits >= TAIL_MAX_COMMITS / 4;
  }

  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  /** A checkpoint of all that is written before this call. */
  request(wish: CheckpointWish = {}): Promise<void> {
    this.#parts.health.check();
    const done = Promise.withResolvers<void>();
    const name = wish.snapshot?.name;
    if (name !== undefined) this.#wantedNames.add(name);
    const settle = (): void => {
      if (name !== undefined) this.#wantedNames.delete(name);
    };
    done.promise.then(settle, settle);
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
    const { index, sealer, reaper } = this.#parts;
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
      : await writePages(this.#parts, 'index', indexChanges(overlay, moved, live), (place) =>
          live.add(place, -1),
        );
    const added = new Map(overlay.segments);
    for (const { number, entry } of indexPart.segments) added.set(number, entry);
    // The first commit has no segment by which the table could free it.
    const freed: FreedObject[] = this.#coversSeq === 0 ? [{ kind: 'commit', epoch: 0, seq: 0 }] : [];
    const { restore } = wish;
    const restored = restore && this.#manifests.get(restore.snapshot.id.toString('hex'));
    const sweep = wish.sweep === true || restore !== undefined || wish.dropSnapshot !== undefined;
    const table = await this.#table.run({ added, live, manifests, restored, sweep, freed });
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
    this.#coversSeq = coversSeq;
    this.#tailCommits -= tailBefore;
    this.checkpointCount += 1;
    const head = await sealer.head();
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
    const { sealer, environment } = this.#parts;
    const { snapshot, dropSnapshot } = wish;
    const kept = this.#snapshots.filter(({ id, manifest }) => {
      if (!dropSnapshot?.equals(id)) return true;
      for (const { entry } of manifest) freed.push({ kind: 'segment', id: entry.id });
      this.#manifests.delete(id.toString('hex'));
      return false;
    });
    if (snapshot === undefined) return kept;
    const manifest = await Manifest.of(base.table, sealer.nextSegment);
    this.#manifests.set(snapshot.id.toString('hex'), manifest);
    const segments = await storeManifest(manifest, { ...this.#parts, pause: () => environment.pause() });
    const timeMs = environment.dateMs();
    return [...kept, { ...snapshot, timeMs, seq, indexRoot: base.index.root, manifest: segments }];
  }
}
