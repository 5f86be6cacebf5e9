import { PosternError } from '../../shared/errors.ts';
import { allocateBody, recycleBody } from '../../shared/objects/bodies.ts';
import type { BlockDevice, BlockExtent } from '../nbd/device.ts';
import { blockStatus } from './block-status.ts';
import type { Checkpointer } from './checkpoint.ts';
import type { CommitPoint } from './commit.ts';
import type { CommitSealer } from './commit-sealer.ts';
import type { VolumeEnvironment } from './environment.ts';
import type { Committer } from './flush.ts';
import type { FrameReader } from './frames.ts';
import type { VolumeHeader } from './header.ts';
import type { Health } from './health.ts';
import type { VolumeIndex } from './index/volume-index.ts';
import type { KeyRing } from './keyring.ts';
import { BLOCK_BYTES, VOLUME_MAX_BYTES, type VolumeLimits } from './limits.ts';
import type { Memory } from './memory.ts';
import type { VolumeObjects } from './objects.ts';
import { ReadAhead } from './read-ahead.ts';
import type { BlockReader } from './reader.ts';
import type { Reaper } from './reaper.ts';
import type { Repacker } from './repack.ts';
import type { BlockWriter } from './writer.ts';

/** Everything an attached volume is made of; put together in attach.ts. */
export interface VolumeParts {
  readonly header: VolumeHeader;
  readonly epoch: number;
  /** The state that the attach found, before its own commit. */
  readonly attachedFrom: CommitPoint;
  /** The first segment number of this attach. */
  readonly firstSegment: number;
  readonly objects: VolumeObjects;
  readonly ring: KeyRing;
  readonly environment: VolumeEnvironment;
  readonly limits: VolumeLimits;
  readonly health: Health;
  readonly memory: Memory;
  readonly index: VolumeIndex;
  readonly frames: FrameReader;
  readonly reader: BlockReader;
  readonly writer: BlockWriter;
  readonly sealer: CommitSealer;
  readonly committer: Committer;
  readonly checkpointer: Checkpointer;
  readonly reaper: Reaper;
  readonly repacker: Repacker;
  anchoredPoint(): CommitPoint;
  /** Resolves when the anchor holds that commit or a later one. */
  anchored(seq: number): Promise<void>;
}

/** An attached volume: the block device that NBD serves. */
export class Volume implements BlockDevice {
  readonly preferredBlockBytes = BLOCK_BYTES;
  readonly readOnly = false;
  readonly parts: VolumeParts;
  readonly #readAhead: ReadAhead;
  #sizeBytes: number;
  /** What a `grow` under way makes of it; 0 when none is. */
  #growingToBytes = 0;
  /** Set while a restore changes the volume under everybody's feet. */
  #isExclusive = false;
  readonly #writing = new Set<Promise<void>>();

  constructor(sizeBytes: number, parts: VolumeParts) {
    this.parts = parts;
    this.#sizeBytes = sizeBytes;
    this.#readAhead = new ReadAhead(parts.reader, parts.limits, () => this.#sizeBytes);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    this.parts.health.checkRead();
    this.#checkRange(offset, length);
    this.#readAhead.note(offset, length);
    const first = Math.floor(offset / BLOCK_BYTES);
    const end = Math.ceil((offset + length) / BLOCK_BYTES);
    const blocks = allocateBody((end - first) * BLOCK_BYTES);
    await this.parts.reader.read(first, blocks);
    this.parts.health.checkRead();
    const from = offset - first * BLOCK_BYTES;
    return blocks.subarray(from, from + length);
  }

  async write(offset: number, data: Buffer, options: { readonly fua: boolean }): Promise<void> {
    await this.#change(offset, data.length, () => this.parts.writer.write(offset, data));
    // All of it was copied, and it is nobody else's.
    recycleBody(data);
    if (options.fua) await this.flush();
  }

  flush(): Promise<void> {
    return this.parts.committer.flush();
  }

  async trim(offset: number, length: number, options: { readonly fua: boolean }): Promise<void> {
    await this.#change(offset, length, () => this.parts.writer.clear(offset, this.#toClear(offset, length)));
    if (options.fua) await this.flush();
  }

  async writeZeroes(
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly noHole: boolean },
  ): Promise<void> {
    const { writer } = this.parts;
    await this.#change(offset, length, () =>
      options.noHole ? writer.zero(offset, length) : writer.clear(offset, this.#toClear(offset, length)),
    );
    if (options.fua) await this.flush();
  }

  async blockStatus(offset: number, length: number): Promise<readonly BlockExtent[]> {
    this.parts.health.checkRead();
    this.#checkRange(offset, length);
    return blockStatus(this.parts.memory.view(), this.parts.index, offset, length);
  }

  async cache(offset: number, length: number): Promise<void> {
    this.#checkRange(offset, length);
    this.#readAhead.fetch(offset, Math.min(length, this.parts.limits.readCacheBytes / 2));
  }

  /** Stores and anchors what is dirty, says that the volume is given up, and closes. */
  async detach(): Promise<void> {
    const { committer, checkpointer, health } = this.parts;
    health.check();
    await this.flush();
    await checkpointer.settled();
    const seq = committer.nextSeq;
    await committer.commit({ detach: true });
    await this.parts.anchored(seq);
    this.close();
  }

  /** Ends without a word to the store, as a crash would; what was acknowledged is safe all the same. */
  close(): void {
    this.parts.health.close();
    this.parts.objects.close();
  }

  /** Runs alone: nothing is written meanwhile. The new size is the one that `work` gives. */
  async exclusively(work: () => Promise<number>): Promise<void> {
    this.parts.health.check();
    if (this.#isExclusive) throw new PosternError('ERR_VOLUME_LIMIT', 'another restore is under way');
    this.#isExclusive = true;
    try {
      await this.parts.repacker.pause();
      await Promise.allSettled(this.#writing);
      this.#sizeBytes = await work();
    } finally {
      this.#isExclusive = false;
      this.parts.repacker.resume();
    }
  }

  /** @throws ERR_VOLUME_RANGE when it would cut off what is there, or is more than there can be */
  async grow(sizeBytes: number): Promise<void> {
    const leastBytes = Math.max(this.#sizeBytes, this.#growingToBytes);
    if (sizeBytes < leastBytes) {
      throw new PosternError('ERR_VOLUME_RANGE', `${sizeBytes} bytes are fewer than ${leastBytes}`);
    }
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes > VOLUME_MAX_BYTES) {
      throw new PosternError('ERR_VOLUME_RANGE', `${sizeBytes} bytes are more than ${VOLUME_MAX_BYTES}`);
    }
    this.#growingToBytes = sizeBytes;
    await this.parts.committer.commit({ sizeBytes });
    // Holes that were begun up to the old end take all of its block, which others may write to from now on.
    await Promise.allSettled(this.#writing);
    this.#sizeBytes = Math.max(this.#sizeBytes, sizeBytes);
    if (this.#growingToBytes === sizeBytes) this.#growingToBytes = 0;
  }

  async #change(offset: number, length: number, work: () => Promise<void>): Promise<void> {
    this.parts.health.check();
    this.#checkRange(offset, length);
    if (this.#isExclusive) throw new PosternError('ERR_VOLUME_LIMIT', 'the volume is being restored');
    const done = work();
    this.#writing.add(done);
    try {
      await done;
    } finally {
      this.#writing.delete(done);
    }
  }

  /** To the end of the volume is to the end of its last block, which nobody else shares: it becomes a hole as well. */
  #toClear(offset: number, length: number): number {
    const end = offset + length;
    const isLast = end === this.#sizeBytes && this.#growingToBytes === 0;
    return isLast ? Math.ceil(end / BLOCK_BYTES) * BLOCK_BYTES - offset : length;
  }

  #checkRange(offset: number, length: number): void {
    const isWhole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
    if (!isWhole || offset < 0 || length < 0 || offset + length > this.#sizeBytes) {
      throw new PosternError('ERR_VOLUME_RANGE', `${length} bytes at ${offset} of ${this.#sizeBytes}`);
    }
  }
}
