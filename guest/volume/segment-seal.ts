import { allocateBody } from '../../shared/objects/bodies.ts';
import type { GenerationKeys, VolumeKeys } from './keys.ts';
import { BLOCK_BYTES } from './limits.ts';
import { DIRECTORY_LBA, SivBuilder, sealFrame, segmentSeal } from './seal.ts';
import {
  countFrames,
  encodeSpans,
  type FrameSpan,
  frameRange,
  type SegmentEntry,
  type SegmentKind,
  segmentBytes,
} from './segment.ts';

/** Plaintext that is hashed or sealed before other work may run: about a millisecond. */
const PAUSE_BYTES = 1024 * 1024;

export interface SegmentPlan {
  readonly kind: SegmentKind;
  readonly id: Buffer;
  /** As `orderSpans` has them; may be empty for the inline part of a commit. */
  readonly spans: readonly FrameSpan[];
  /** The index refers to so many of its blocks from the start. */
  readonly liveBlocks: number;
  /** Fills `target` with the plaintext of the span. Called twice for each, and must give the same both times. */
  fill(span: FrameSpan, target: Buffer): void;
}

export interface SealedSegment {
  readonly entry: SegmentEntry;
  /** The caller's, from `allocateBody`. */
  readonly bytes: Buffer;
}

/** Seals one segment: first the MAC over all of it, then, with the key that follows from that, each frame. */
export async function sealSegment(
  keys: GenerationKeys,
  volume: VolumeKeys,
  plan: SegmentPlan,
  pause: () => Promise<void>,
): Promise<SealedSegment> {
  const { spans } = plan;
  const draft: SegmentEntry = {
    kind: plan.kind,
    generation: keys.generation,
    id: plan.id,
    siv: Buffer.alloc(32),
    frameCounts: countFrames(spans),
    liveBlocks: plan.liveBlocks,
    epoch: 0,
    seq: 0,
    baseOffset: 0,
  };
  if (spans.length === 0) return { entry: draft, bytes: Buffer.alloc(0) };
  const directory = encodeSpans(spans);
  // The first frame is the largest.
  const scratch = Buffer.allocUnsafeSlow((spans[0]?.blocks ?? 0) * BLOCK_BYTES);
  const mac = new SivBuilder(keys, volume.volumeId, plan.id);
  await eachFrame(plan, scratch, pause, (_index, _span, bytes) => mac.update(bytes));
  mac.update(directory);
  const siv = mac.finish();
  const entry = { ...draft, siv };
  const seal = segmentSeal(keys, volume.volumeId, plan.id, siv);
  const bytes = allocateBody(segmentBytes(entry));
  let at = 0;
  await eachFrame(plan, scratch, pause, (index, span, plain) => {
    at = sealFrame(seal, index, span, plain, bytes, at);
  });
  sealFrame(seal, spans.length, { lba: DIRECTORY_LBA, blocks: 0 }, directory, bytes, at);
  return { entry, bytes };
}

async function eachFrame(
  plan: SegmentPlan,
  scratch: Buffer,
  pause: () => Promise<void>,
  use: (index: number, span: FrameSpan, bytes: Buffer) => void,
): Promise<void> {
  let sincePause = 0;
  for (const [index, span] of plan.spans.entries()) {
    const bytes = scratch.subarray(0, span.blocks * BLOCK_BYTES);
    plan.fill(span, bytes);
    use(index, span, bytes);
    sincePause += bytes.length;
    if (sincePause >= PAUSE_BYTES) {
      sincePause = 0;
      await pause();
    }
  }
}

/** Where the directory of a segment lies in its object. */
export function directoryRange(entry: SegmentEntry): { readonly offset: number; readonly length: number } {
  const frames = entry.frameCounts.reduce((sum, count) => sum + count, 0);
  const { offset, length } = frameRange(entry, frames);
  return { offset, length };
}
