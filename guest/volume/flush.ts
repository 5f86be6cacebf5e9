import type { PosternError } from '../../shared/errors.ts';
import type { Anchoring } from './anchoring.ts';
import { planBatch, trimsOf } from './batch.ts';
import type { CommitExtras, CommitJob, CommitSealer, Part, SealedJob, VolumeHead } from './commit-sealer.ts';
import type { Health } from './health.ts';
import type { VolumeIndex } from './index/volume-index.ts';
import type { VolumeLimits } from './limits.ts';
import type { Layer, Memory } from './memory.ts';
import { commitName } from './names.ts';
import type { VolumeObjects } from './objects.ts';
import type { DeltaGroup } from './record.ts';
import type { FrameSpan } from './segment.ts';

/** A commit that has settled: acknowledged, and part of the index. */
export interface SettledCommit {
  readonly seq: number;
  readonly extras: CommitExtras;
}

export interface CommitterParts {
  readonly objects: VolumeObjects;
  readonly limits: VolumeLimits;
  readonly memory: Memory;
  readonly index: VolumeIndex;
  readonly health: Health;
  /** True while commits have to wait for a checkpoint, so that the tail which an attach reads stays bounded. */
  isHeldUp(): boolean;
  /** Called in order, when the layer is stored and the index does not know yet. */
  onStored(layer: Layer, group: DeltaGroup): void;
  /** Called in order, at the moment when the index is exactly as of that commit. */
  onSettled(commit: SettledCommit): void;
}

interface Pending {
  extras: CommitExtras;
  readonly waiters: PromiseWithResolvers<void>[];
}

/** One frozen layer on its way; a spill until some commit names it, or a commit with its own seq. */
interface Batch {
  readonly layer: Layer;
  readonly seq: number | undefined;
  readonly pending: Pending | undefined;
  group: DeltaGroup | undefined;
  isSettled: boolean;
}

/**
 * The write path: freezes what is dirty, seals it, stores it, has it anchored, and settles batches in the order of
 * freezing. At most `pipelineCommits` commits are between freezing and settling; flushes that come meanwhile share
 * the next one.
 */
export class Committer {
  readonly #parts: CommitterParts;
  readonly #sealer: CommitSealer;
  #anchoring: Anchoring | undefined;
  #nextSeq: number;
  #batches: Batch[] = [];
  #spilled: { readonly trims: DeltaGroup['trims']; readonly segments: Part[] }[] = [];
  #pending: Pending | undefined;
  #last: Promise<void> = Promise.resolve();
  #inFlight = 0;
  #isPumpDue = false;
  #isLast = false;
  commitCount = 0;
  spillCount = 0;

  constructor(head: VolumeHead, sealer: CommitSealer, parts: CommitterParts) {
    this.#parts = parts;
    this.#sealer = sealer;
    this.#nextSeq = head.point.seq + 1;
    parts.health.onFailure((error) => this.#rejectAll(error));
  }

  /** The two know each other; the anchor's side comes second. */
  anchorWith(anchoring: Anchoring): void {
    this.#anchoring = anchoring;
  }

  get inFlightCount(): number {
    return this.#inFlight;
  }

  /** What the next commit to be frozen will be. */
  get nextSeq(): number {
    return this.#nextSeq;
  }

  /** Resolves when everything written before is settled; free when nothing was. */
  async flush(): Promise<void> {
    this.#parts.health.check();
    const isClean = this.#parts.memory.dirty.isEmpty && this.#spilled.length === 0;
    if (isClean && this.#pending === undefined) return this.#last;
    return this.commit({});
  }

  /** A commit with something to say, or with whatever is dirty; shared by all who ask before it is frozen. */
  commit(extras: CommitExtras): Promise<void> {
    this.#parts.health.check();
    this.#pending ??= { extras: {}, waiters: [] };
    this.#pending.extras = { ...this.#pending.extras, ...extras };
    const waiter = Promise.withResolvers<void>();
    this.#pending.waiters.push(waiter);
    // A commit that nobody waits for fails through `health`, which everybody meets.
    waiter.promise.catch(() => undefined);
    this.#pumpSoon();
    return waiter.promise;
  }

  /** True when a spill may begin; when not, a commit is on its way that lets spills go on. */
  get canSpill(): boolean {
    return this.#spilled.length < 2 * this.#parts.limits.spillsPerCommit;
  }

  /** Puts what is dirty into segments ahead of the next commit, which names them. */
  spill(): void {
    const { memory, limits } = this.#parts;
    if (memory.dirty.blocks.size === 0 || !this.canSpill) return;
    this.spillCount += 1;
    const layer = memory.freeze();
    const { segments } = planBatch(layer, limits, 0);
    const parts = segments.map((spans) => this.#start(layer, spans));
    const trims = trimsOf(layer);
    const batch: Batch = { layer, seq: undefined, pending: undefined, group: undefined, isSettled: false };
    this.#batches.push(batch);
    this.#spilled.push({ trims, segments: parts });
    this.#guard(this.#settleSpill(batch, trims, parts));
    if (this.#spilled.length >= limits.spillsPerCommit) void this.commit({});
  }

  /** The anchor's side says how far commits are acknowledged. */
  acknowledged(seq: number): void {
    for (const batch of this.#batches)
      if (batch.seq !== undefined && batch.seq <= seq) batch.isSettled = true;
    this.#retire();
  }

  async #settleSpill(batch: Batch, trims: DeltaGroup['trims'], parts: readonly Part[]): Promise<void> {
    await Promise.all(parts.map(({ stored }) => stored));
    batch.group = { trims, segments: await Promise.all(parts.map(({ sealed }) => sealed)) };
    batch.isSettled = true;
    this.#retire();
  }

  #pumpSoon(): void {
    if (this.#isPumpDue) return;
    this.#isPumpDue = true;
    // Flushes of one turn share a commit.
    queueMicrotask(() => {
      this.#isPumpDue = false;
      if (this.#parts.health.state === 'serving') this.#pump();
    });
  }

  #pump(): void {
    const pending = this.#pending;
    if (pending === undefined || this.#inFlight >= this.#parts.limits.pipelineCommits) return;
    if (pending.extras.checkpoint === undefined && this.#parts.isHeldUp()) return;
    if (pending.waiters.length < this.#waitingInFlight()) return;
    // The commit that gives the volume up, or over to be deleted, is the last: one after it would say that it is in use.
    if (this.#isLast) return;
    this.#isLast = pending.extras.detach === true || pending.extras.deletion === true;
    this.#pending = undefined;
    this.#inFlight += 1;
    this.#launch(pending);
  }

  /**
   * Flushes that commits under way will answer. The next commit goes when as many wait for it, or when those are answered:
   * so half of those who flush travel while the other half gathers, instead of every commit leaving with the first of them.
   */
  #waitingInFlight(): number {
    return this.#batches.reduce((count, { pending }) => count + (pending?.waiters.length ?? 0), 0);
  }

  #launch(pending: Pending): void {
    const { memory, limits } = this.#parts;
    const seq = this.#nextSeq;
    this.#nextSeq += 1;
    this.commitCount += 1;
    const layer = memory.freeze();
    const plan = planBatch(layer, limits, limits.inlineBytes);
    const segments = plan.segments.map((spans) => this.#start(layer, spans));
    const groups = [...this.#spilled, { trims: trimsOf(layer), segments }];
    this.#spilled = [];
    const batch: Batch = { layer, seq, pending, group: undefined, isSettled: false };
    this.#batches.push(batch);
    const waiter = pending.waiters[0];
    if (waiter !== undefined) this.#last = waiter.promise;
    const job = { layer, seq, extras: pending.extras, groups, inline: plan.inline };
    this.#guard(this.#store(batch, groups, this.#sealer.sealCommit(job)));
  }

  #start(layer: Layer, spans: readonly FrameSpan[]): Part {
    const part = this.#sealer.startSegment(layer, spans);
    this.#guard(part.stored);
    return part;
  }

  async #store(batch: Batch, groups: CommitJob['groups'], sealing: Promise<SealedJob>): Promise<void> {
    const { objects, health } = this.#parts;
    const { head, own, object } = await sealing;
    batch.group = own;
    // A commit that is in the store must never name a segment that is not.
    await Promise.all(groups.flatMap(({ segments }) => segments.map(({ stored }) => stored)));
    await objects.put(commitName(head.point.epoch, head.point.seq), object);
    if (health.state === 'serving') this.#anchoring?.durable(head.point);
  }

  #retire(): void {
    for (let batch = this.#batches[0]; batch?.isSettled; batch = this.#batches[0]) {
      const { layer, group, seq, pending } = batch;
      if (group === undefined) throw new RangeError('a batch settled before it was sealed');
      this.#batches.shift();
      this.#parts.onStored(layer, group);
      this.#parts.index.apply(group);
      this.#parts.memory.drop(layer);
      if (seq === undefined || pending === undefined) continue;
      this.#inFlight -= 1;
      this.#parts.onSettled({ seq, extras: pending.extras });
      for (const waiter of pending.waiters) waiter.resolve();
    }
    this.#pumpSoon();
  }

  #guard(work: Promise<void>): void {
    work.catch((error: unknown) => this.#parts.health.fail(error));
  }

  #rejectAll(error: PosternError): void {
    const waiters = [...this.#batches.map(({ pending }) => pending), this.#pending].flatMap(
      (pending) => pending?.waiters ?? [],
    );
    this.#pending = undefined;
    for (const waiter of waiters) waiter.reject(error);
    this.#parts.memory.wakeAll();
  }
}
