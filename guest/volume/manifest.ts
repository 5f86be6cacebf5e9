import { PosternError } from '../../shared/errors.ts';
import type { CommitSealer } from './commit-sealer.ts';
import { FieldReader, FieldWriter } from './fields.ts';
import { MANIFEST_LBA, type Tree } from './index/tree.ts';
import { tableEntry } from './index/volume-index.ts';
import type { KeyRing } from './keyring.ts';
import {
  BLOCK_BYTES,
  FRAME_MAX_BLOCKS,
  MANIFEST_SEGMENTS_MAX,
  TABLE_PAGE_ENTRIES,
  type VolumeLimits,
} from './limits.ts';
import { segmentName } from './names.ts';
import type { VolumeObjects } from './objects.ts';
import type { NumberedSegment } from './record.ts';
import { openFrame, segmentSeal } from './seal.ts';
import { type FrameSpan, frameCount, frameRange, segmentBytes } from './segment.ts';
import { sealSegment } from './segment-seal.ts';

const ENTRY_BYTES = 10;

/** What a snapshot pins: how many blocks of each segment it refers to. */
export class Manifest {
  readonly #numbers: Float64Array;
  readonly #counts: Uint32Array;

  /** `numbers` ascending. */
  constructor(numbers: readonly number[], counts: readonly number[]) {
    this.#numbers = Float64Array.from(numbers);
    this.#counts = Uint32Array.from(counts);
  }

  get segmentCount(): number {
    return this.#numbers.length;
  }

  /** Live blocks of the segment in the snapshot; 0 when it does not need it. */
  liveBlocks(segment: number): number {
    let low = 0;
    let high = this.#numbers.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#numbers[middle] ?? 0) < segment) low = middle + 1;
      else high = middle;
    }
    return this.#numbers[low] === segment ? (this.#counts[low] ?? 0) : 0;
  }

  encode(): Buffer {
    const writer = new FieldWriter(8 + this.#numbers.length * ENTRY_BYTES).u64(this.#numbers.length);
    for (const [index, number] of this.#numbers.entries()) writer.u48(number).u32(this.#counts[index] ?? 0);
    const padding = (BLOCK_BYTES - (writer.length % BLOCK_BYTES)) % BLOCK_BYTES;
    return writer.raw(Buffer.alloc(padding)).finish();
  }

  /** @throws ERR_VOLUME_CORRUPT */
  static decode(bytes: Buffer): Manifest {
    const reader = new FieldReader(bytes, 'snapshot manifest');
    const count = reader.count(reader.u64(), bytes.length, ENTRY_BYTES, 'segments');
    const numbers: number[] = [];
    const counts: number[] = [];
    for (let index = 0; index < count; index += 1) {
      numbers.push(reader.u48());
      counts.push(reader.u32());
      if (index > 0 && (numbers[index] ?? 0) <= (numbers[index - 1] ?? 0))
        throw reader.corrupt('out of order');
    }
    return new Manifest(numbers, counts);
  }

  /** Every segment of a table that has live blocks. */
  static async of(table: Tree, endSegment: number): Promise<Manifest> {
    const numbers: number[] = [];
    const counts: number[] = [];
    for await (const { number: leaf, bytes } of table.leaves(Math.ceil(endSegment / TABLE_PAGE_ENTRIES))) {
      for (let number = leaf * TABLE_PAGE_ENTRIES; number < (leaf + 1) * TABLE_PAGE_ENTRIES; number += 1) {
        const live = tableEntry(bytes, number)?.liveBlocks ?? 0;
        if (live === 0) continue;
        numbers.push(number);
        counts.push(live);
      }
    }
    return new Manifest(numbers, counts);
  }
}

/** Seals and stores a manifest. @throws ERR_VOLUME_LIMIT when it takes more than MANIFEST_SEGMENTS_MAX segments */
export async function storeManifest(
  manifest: Manifest,
  parts: {
    readonly objects: VolumeObjects;
    readonly ring: KeyRing;
    readonly limits: VolumeLimits;
    readonly sealer: CommitSealer;
    pause(): Promise<void>;
  },
): Promise<NumberedSegment[]> {
  const bytes = manifest.encode();
  const stored: NumberedSegment[] = [];
  const { limits, sealer, ring, objects } = parts;
  if (bytes.length > MANIFEST_SEGMENTS_MAX * limits.segmentBytes) {
    throw new PosternError('ERR_VOLUME_LIMIT', `a snapshot of ${manifest.segmentCount} segments`);
  }
  for (let from = 0; from < bytes.length; from += limits.segmentBytes) {
    const part = bytes.subarray(from, from + limits.segmentBytes);
    const { number, id } = sealer.allocateSegment();
    const fill = (span: FrameSpan, target: Buffer): void => {
      const at = (span.lba - MANIFEST_LBA) * BLOCK_BYTES;
      target.set(part.subarray(at, at + target.length));
    };
    const plan = { kind: 'manifest', id, spans: manifestSpans(part.length), liveBlocks: 0, fill } as const;
    const keys = ring.known(sealer.generation);
    const sealed = await sealSegment(keys, ring.volume, plan, () => parts.pause());
    await objects.put(segmentName(id), sealed.bytes);
    stored.push({ number, entry: sealed.entry });
  }
  return stored;
}

/** @throws ERR_VOLUME_CORRUPT, ERR_VOLUME_MISSING, ERR_VOLUME_UNAVAILABLE */
export async function loadManifest(
  segments: readonly NumberedSegment[],
  objects: VolumeObjects,
  ring: KeyRing,
): Promise<Manifest> {
  const parts: Buffer[] = [];
  for (const { entry } of segments) {
    const keys = await ring.open(entry.generation);
    const seal = segmentSeal(keys, ring.volume.volumeId, entry.id, entry.siv);
    const bytes = await objects.need(segmentName(entry.id), { offset: 0, length: segmentBytes(entry) });
    let lba = MANIFEST_LBA;
    for (let frame = 0; frame < frameCount(entry); frame += 1) {
      const { offset, length, blocks } = frameRange(entry, frame);
      parts.push(openFrame(seal, frame, { lba, blocks }, bytes.subarray(offset, offset + length)));
      lba += blocks;
    }
  }
  return Manifest.decode(Buffer.concat(parts));
}

function manifestSpans(byteCount: number): FrameSpan[] {
  const spans: FrameSpan[] = [];
  const count = byteCount / BLOCK_BYTES;
  for (let at = 0; at < count; at += FRAME_MAX_BLOCKS) {
    spans.push({ lba: MANIFEST_LBA + at, blocks: Math.min(FRAME_MAX_BLOCKS, count - at) });
  }
  return spans;
}
