import type { CommitSealer } from './commit-sealer.ts';
import { pageLba, type TreeKind } from './index/tree.ts';
import type { Pages } from './index/volume-index.ts';
import type { KeyRing } from './keyring.ts';
import { BLOCK_BYTES, type VolumeLimits } from './limits.ts';
import { segmentName } from './names.ts';
import type { VolumeObjects } from './objects.ts';
import type { NumberedSegment } from './record.ts';
import { type FrameSpan, location } from './segment.ts';
import { sealSegment } from './segment-seal.ts';

export interface PageWriterParts {
  readonly objects: VolumeObjects;
  readonly ring: KeyRing;
  readonly limits: VolumeLimits;
  readonly sealer: CommitSealer;
  readonly pages: Pages;
  pause(): Promise<void>;
}

interface OpenSegment {
  readonly number: number;
  readonly id: Buffer;
  readonly spans: FrameSpan[];
  readonly pages: Buffer[];
}

/** Puts pages into segments, a frame each, in the order in which they come; they are durable after `finish`. */
export class PageWriter {
  readonly #parts: PageWriterParts;
  readonly #kind: TreeKind;
  readonly #segments: NumberedSegment[] = [];
  #open: OpenSegment | undefined;

  constructor(kind: TreeKind, parts: PageWriterParts) {
    this.#kind = kind;
    this.#parts = parts;
  }

  async emit(level: number, page: number, bytes: Buffer): Promise<number> {
    this.#open ??= { ...this.#parts.sealer.allocateSegment(), spans: [], pages: [] };
    const open = this.#open;
    const place = location(open.number, open.spans.length, 0);
    open.spans.push({ lba: pageLba(this.#kind, level, page), blocks: 1 });
    open.pages.push(bytes);
    this.#parts.pages.cache.set(place, bytes);
    if ((open.pages.length + 1) * BLOCK_BYTES > this.#parts.limits.segmentBytes) await this.#store();
    return place;
  }

  /** Every segment that was written, all of its pages alive. */
  async finish(): Promise<readonly NumberedSegment[]> {
    await this.#store();
    return this.#segments;
  }

  async #store(): Promise<void> {
    const open = this.#open;
    if (open === undefined) return;
    this.#open = undefined;
    const { objects, ring, sealer } = this.#parts;
    let at = 0;
    const plan = {
      kind: this.#kind,
      id: open.id,
      spans: open.spans,
      liveBlocks: open.pages.length,
      // Frames are asked for in order, and all of them twice.
      fill: (_span: FrameSpan, target: Buffer): void => {
        target.set(open.pages[at % open.pages.length] ?? Buffer.alloc(0));
        at += 1;
      },
    };
    const keys = ring.known(sealer.generation);
    const { entry, bytes } = await sealSegment(keys, ring.volume, plan, () => this.#parts.pause());
    await objects.put(segmentName(open.id), bytes);
    this.#segments.push({ number: open.number, entry });
  }
}
