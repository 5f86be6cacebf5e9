import { allocateBody, recycleBody } from '../../shared/objects/bodies.ts';
import { type CommitPoint, sealCommit } from './commit.ts';
import type { VolumeEnvironment } from './environment.ts';
import { append, commitLeaf, type Frontier } from './frontier.ts';
import type { KeyRing } from './keyring.ts';
import { inlineSegmentId, segmentId } from './keys.ts';
import { BLOCK_BYTES, type VolumeLimits } from './limits.ts';
import type { Layer, Memory } from './memory.ts';
import { segmentName } from './names.ts';
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
  readonly deletion?: boolean;
  readonly sizeBytes?: number;
  readonly oldestGeneration?: number;
  readonly restoreToken?: Buffer;
  readonly checkpoint?: Checkpoint;
}

/** One part of a batch: `sealed` when its MAC is known, `stored` when its object is. */
export interface Part {
  readonly sealed: Promise<DeltaSegment>;
  readonly stored: Promise<void>;
}

/** One commit on its way, from the freeze of its layer. */
export interface CommitJob {
  readonly layer: Layer;
  readonly seq: number;
  readonly generation: number;
  readonly extras: CommitExtras;
  readonly groups: readonly { readonly trims: DeltaGroup['trims']; readonly segments: readonly Part[] }[];
  readonly inlineNumber: number;
  readonly inline: readonly FrameSpan[];
}

export interface SealedJob {
  readonly head: VolumeHead;
  /** The commit's own group, as the index takes it. */
  readonly own: DeltaGroup;
  readonly object: Buffer;
}

export interface SealerParts {
  readonly epoch: number;
  readonly objects: VolumeObjects;
  readonly ring: KeyRing;
  readonly environment: VolumeEnvironment;
  readonly limits: VolumeLimits;
  readonly memory: Memory;
}

/** Gives segments their numbers, seals them and the commits that name them, each commit after the one before it. */
export class CommitSealer {
  readonly #parts: SealerParts;
  readonly #large: Semaphore;
  #head: Promise<VolumeHead>;
  #nextSegment: number;
  /** What is sealed from now on is sealed under this one. */
  generation: number;

  constructor(head: VolumeHead, nextSegment: number, parts: SealerParts) {
    this.#parts = parts;
    this.#head = Promise.resolve(head);
    this.#nextSegment = nextSegment;
    this.generation = head.generation;
    this.#large = new Semaphore(parts.limits.largePuts);
  }

  /** The newest sealed commit; commits in flight included. */
  head(): Promise<VolumeHead> {
    return this.#head;
  }

  get nextSegment(): number {
    return this.#nextSegment;
  }

  allocateSegment(): { readonly number: number; readonly id: Buffer } {
    const number = this.#takeNumber();
    return { number, id: segmentId(this.#parts.ring.volume, this.#parts.epoch, number) };
  }

  #takeNumber(): number {
    this.#nextSegment += 1;
    return this.#nextSegment - 1;
  }

  /** Numbers the job and seals it when the commit before it is sealed. */
  sealCommit(job: Omit<CommitJob, 'generation' | 'inlineNumber'>): Promise<SealedJob> {
    const inlineNumber = this.#takeNumber();
    const numbered = { ...job, generation: this.generation, inlineNumber };
    const sealed = this.#sealJob(numbered, this.#head, this.#nextSegment);
    this.#head = sealed.then(({ head }) => head);
    this.#head.catch(() => undefined);
    return sealed;
  }

  /** Seals and stores one segment object, as soon as few enough others are under way. */
  startSegment(layer: Layer, spans: readonly FrameSpan[]): Part {
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
    return { sealed: sealed.promise, stored };
  }

  async #sealJob(job: CommitJob, previous: Promise<VolumeHead>, nextSegment: number): Promise<SealedJob> {
    const { ring, epoch } = this.#parts;
    const id = inlineSegmentId(ring.volume, epoch, job.seq);
    const inline = await this.#seal(this.#planOf(job.layer, job.inline, 'inline', id), job.generation);
    const groups = await Promise.all(
      job.groups.map(async ({ trims, segments }) => ({
        trims,
        segments: await Promise.all(segments.map(({ sealed }) => sealed)),
      })),
    );
    const before = await previous;
    const own = groups.at(-1);
    if (own === undefined) throw new RangeError('a commit without a group of its own');
    const entry = { ...inline.entry, epoch, seq: job.seq };
    own.segments.push({ number: job.inlineNumber, entry, spans: job.inline });
    const record = this.#record(job, before, groups, nextSegment);
    const { generation } = job;
    const { bytes, hash } = sealCommit(ring.known(generation), ring.volume, epoch, job.seq, record);
    const head = this.#headAfter(before, record, generation, { epoch, seq: job.seq, hash });
    const object = allocateBody(bytes.length + inline.bytes.length);
    object.set(bytes, 0);
    object.set(inline.bytes, bytes.length);
    recycleBody(inline.bytes);
    return { head, own: withBase(own, bytes.length), object };
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
      deletion: extras.deletion ?? false,
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
}

/** The group as the index takes it: inline frames begin after the sealed record, wherever that ended. */
export function withBase(group: DeltaGroup, baseOffset: number): DeltaGroup {
  const segments = group.segments.map((segment) =>
    segment.entry.kind === 'inline' ? { ...segment, entry: { ...segment.entry, baseOffset } } : segment,
  );
  return { trims: group.trims, segments };
}
