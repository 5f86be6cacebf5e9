import type { PosternError } from '../../shared/errors.ts';
import type { Anchoring } from './anchoring.ts';
import { planBatch, trimsOf } from './batch.ts';
import { type CommitPoint, sealCommit } from './commit.ts';
import type { VolumeEnvironment } from './environment.ts';
import { append, commitLeaf, type Frontier } from './frontier.ts';
import type { Health } from './health.ts';
import type { VolumeIndex } from './index/volume-index.ts';
import type { KeyRing } from './keyring.ts';
import { inlineSegmentId, segmentId } from './keys.ts';
import { BLOCK_BYTES, TRIMS_MAX, type VolumeLimits } from './limits.ts';
import type { Layer, Memory } from './memory.ts';
import { commitName, segmentName } from './names.ts';
import type { VolumeObjects } from './objects.ts';
import type { Checkpoint, CommitRecord, DeltaGroup, DeltaSegment } from './record.ts';
import type { FrameSpan, SegmentKind } from './segment.ts';
import { type SealedSegment, type SegmentPlan, sealSegment } from './segment-seal.ts';
import { Semaphore } from './semaphore.ts';

/** What a volume is as of its newest sealed commit; the next commit continues from it. */
export interface VolumeHead {
  readonly point: CommitPoint;
  /** The log up to and including `point`. */
  readonly frontier: Frontier;
  readonly sizeBytes: number;
  readonly generation: number;
  readonly oldestGeneration: number;
  readonly checkpointEpoch: number;
  readonly checkpointSeq: number;
}

/** What a commit says besides its blocks. */
export interface CommitExtras {
  readonly nonce?: Buffer;
  readonly detach?: boolean;
  readonly sizeBytes?: number;
  readonly oldestGeneration?: number;
  readonly restoreToken?: Buffer;
  readonly checkpoint?: Checkpoint;
}

/** A commit that has settled: acknowledged, and part of the index. */
export interface SettledCommit {
  readonly seq: number;
  readonly extras: CommitExtras;
}

export interface CommitterParts {
  readonly epoch: number;
  readonly objects: VolumeObjects;
  readonly ring: KeyRing;
  readonly environment: VolumeEnvironment;
  readonly limits: VolumeLimits;
  readonly memory: Memory;
  readonly index: VolumeIndex;
  readonly health: Health;
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

/** One part of a batch: `sealed` when its MAC is known, `stored` when its object is. */
interface Part {
  readonly sealed: Promise<DeltaSegment>;
  readonly stored: Promise<void>;
}

/**
 * The write path: freezes what is dirty, seals it, stores it, has it anchored, and settles batches in the order of
 * freezing. At most `pipelineCommits` commits are between freezing and settling; flushes that come meanwhile share
 * the next one.
 */
export class Committer {
  readonly #parts: CommitterParts;
  readonly #large: Semaphore;
  #anchoring: Anchoring | undefined;
  #head: Promise<VolumeHead>;
  #nextSeq: number;
  #nextSegment: number;
  #batches: Batch[] = [];
  #spilled: { readonly trims: DeltaGroup['trims']; readonly segments: Part[] }[] = [];
  #pending: Pending | undefined;
  #last: Promise<void> = Promise.resolve();
  #inFlight = 0;
  #isPumpDue = false;
  commitCount = 0;
  spillCount = 0;
  /** What is sealed from now on is sealed under this one. */
  generation: number;

  constructor(head: VolumeHead, nextSegment: number, parts: CommitterParts) {
    this.#parts = parts;
    this.#head = Promise.resolve(head);
    this.#nextSeq = head.point.seq + 1;
    this.#nextSegment = nextSegment;
    this.generation = head.generation;
    this.#large = new Semaphore(parts.limits.largePuts);
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

  get nextSegment(): number {
    return this.#nextSegment;
  }

  allocateSegment(): { readonly number: number; readonly id: Buffer } {
    const number = this.#nextSegment;
    this.#nextSegment += 1;
    return { number, id: segmentId(this.#parts.ring.volume, this.#parts.epoch, number) };
  }

  /** The newest sealed commit; commits in flight included. */
  head(): Promise<VolumeHead> {
    return this.#head;
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
    const parts = segments.map((spans) => this.#startSegment(layer, spans));
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
    this.#pending = undefined;
    this.#inFlight += 1;
    this.#launch(pending);
  }

  #launch(pending: Pending): void {
    const { memory, limits } = this.#parts;
    const seq = this.#nextSeq;
    this.#nextSeq += 1;
    this.commitCount += 1;
    const layer = memory.freeze();
    const plan = planBatch(layer, limits, limits.inlineBytes);
    const segments = plan.segments.map((spans) => this.#startSegment(layer, spans));
    const groups = [...this.#spilled, { trims: trimsOf(layer), segments }];
    this.#spilled = [];
    const inlineNumber = this.#nextSegment;
    this.#nextSegment += 1;
    const batch: Batch = { layer, seq, pending, group: undefined, isSettled: false };
    this.#batches.push(batch);
    const waiter = pending.waiters[0];
    if (waiter !== undefined) this.#last = waiter.promise;
    const { generation } = this;
    const job = { batch, seq, generation, extras: pending.extras, groups, inlineNumber, inline: plan.inline };
    const sealed = this.#sealJob(job, this.#head, this.#nextSegment);
    this.#head = sealed.then(({ head }) => head);
    this.#head.catch(() => undefined);
    this.#guard(this.#storeJob(job, sealed));
  }

  /** Seals and stores one segment object, as soon as few enough others are under way. */
  #startSegment(layer: Layer, spans: readonly FrameSpan[]): Part {
    const { objects } = this.#parts;
    const { number, id } = this.allocateSegment();
    const { generation } = this;
    const sealed = Promise.withResolvers<DeltaSegment>();
    const stored = this.#large.run(async () => {
      try {
        const { entry, bytes } = await this.#seal(this.#planOf(layer, spans, 'data', id), generation);
        sealed.resolve({ number, entry, spans });
        await objects.put(segmentName(id), bytes);
      } catch (error) {
        sealed.reject(error);
        throw error;
      }
    });
    sealed.promise.catch(() => undefined);
    this.#guard(stored);
    return { sealed: sealed.promise, stored };
  }

  async #sealJob(job: CommitJob, previous: Promise<VolumeHead>, nextSegment: number) {
    const { ring, epoch } = this.#parts;
    const id = inlineSegmentId(ring.volume, epoch, job.seq);
    const inline = await this.#seal(this.#planOf(job.batch.layer, job.inline, 'inline', id), job.generation);
    const groups = await Promise.all(
      job.groups.map(async ({ trims, segments }) => ({
        trims,
        segments: await Promise.all(segments.map(({ sealed }) => sealed)),
      })),
    );
    const before = await previous;
    const own = groups.at(-1);
    const entry = { ...inline.entry, epoch, seq: job.seq };
    own?.segments.push({ number: job.inlineNumber, entry, spans: job.inline });
    const record = this.#record(job, before, groups, nextSegment);
    const { generation } = job;
    const { bytes, hash } = sealCommit(ring.known(generation), ring.volume, epoch, job.seq, record);
    const head = this.#headAfter(before, record, generation, { epoch, seq: job.seq, hash });
    job.batch.group = own && withBase(own, bytes.length);
    return { head, object: Buffer.concat([bytes, inline.bytes]) };
  }

  async #storeJob(job: CommitJob, sealing: Promise<{ head: VolumeHead; object: Buffer }>): Promise<void> {
    const { objects, epoch, health } = this.#parts;
    const { head, object } = await sealing;
    // A commit that is in the store must never name a segment that is not.
    await Promise.all(job.groups.flatMap(({ segments }) => segments.map(({ stored }) => stored)));
    await objects.put(commitName(epoch, job.seq), object);
    if (health.state === 'serving') this.#anchoring?.durable(head.point);
  }

  #record(
    job: CommitJob,
    before: VolumeHead,
    groups: readonly DeltaGroup[],
    nextSegment: number,
  ): CommitRecord {
    const { extras, seq } = job;
    return {
      attach: extras.nonce !== undefined,
      detach: extras.detach ?? false,
      prevEpoch: before.point.epoch,
      prevHash: before.point.hash,
      sizeBytes: extras.sizeBytes ?? before.sizeBytes,
      oldestGeneration: extras.oldestGeneration ?? before.oldestGeneration,
      nextSegment,
      checkpointEpoch: extras.checkpoint ? this.#parts.epoch : before.checkpointEpoch,
      checkpointSeq: extras.checkpoint ? seq : before.checkpointSeq,
      timeMs: this.#parts.environment.dateMs(),
      nonce: extras.nonce ?? Buffer.alloc(0),
      frontier: before.frontier,
      groups,
      checkpoint: extras.checkpoint,
      restoreToken: extras.restoreToken,
    };
  }

  #headAfter(before: VolumeHead, record: CommitRecord, generation: number, point: CommitPoint): VolumeHead {
    const leaf = commitLeaf(this.#parts.ring.volume, point.epoch, point.seq, point.hash);
    return {
      point,
      frontier: append(before.frontier, leaf),
      sizeBytes: record.sizeBytes,
      generation,
      oldestGeneration: record.oldestGeneration,
      checkpointEpoch: record.checkpointEpoch,
      checkpointSeq: record.checkpointSeq,
    };
  }

  #planOf(layer: Layer, spans: readonly FrameSpan[], kind: SegmentKind, id: Buffer): SegmentPlan {
    const { memory } = this.#parts;
    const fill = (span: FrameSpan, target: Buffer): void => {
      for (let at = 0; at < span.blocks; at += 1) {
        const slot = layer.blocks.get(span.lba + at);
        if (slot === undefined) throw new RangeError(`block ${span.lba + at} left its frozen layer`);
        target.set(memory.bytesOf(slot), at * BLOCK_BYTES);
      }
    };
    return { kind, id, spans, liveBlocks: 0, fill };
  }

  async #seal(plan: SegmentPlan, generation: number): Promise<SealedSegment> {
    const { ring, environment } = this.#parts;
    return sealSegment(ring.known(generation), ring.volume, plan, () => environment.pause());
  }

  #retire(): void {
    for (let batch = this.#batches[0]; batch?.isSettled; batch = this.#batches[0]) {
      const { layer, group, seq, pending } = batch;
      if (group === undefined) throw new RangeError('a batch settled before it was sealed');
      this.#batches.shift();
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

interface CommitJob {
  readonly batch: Batch;
  readonly seq: number;
  readonly generation: number;
  readonly extras: CommitExtras;
  readonly groups: readonly { readonly trims: DeltaGroup['trims']; readonly segments: readonly Part[] }[];
  readonly inlineNumber: number;
  readonly inline: readonly FrameSpan[];
}

/** The group as the index takes it: inline frames begin after the sealed record, wherever that ended. */
export function withBase(group: DeltaGroup, baseOffset: number): DeltaGroup {
  const segments = group.segments.map((segment) =>
    segment.entry.kind === 'inline' ? { ...segment, entry: { ...segment.entry, baseOffset } } : segment,
  );
  return { trims: group.trims, segments };
}

/** Trims that one layer takes before it is committed by itself. */
export const LAYER_TRIMS = TRIMS_MAX / 2;
