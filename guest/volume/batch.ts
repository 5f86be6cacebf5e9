import { BLOCK_BYTES, FRAME_MAX_BLOCKS, SEGMENT_MAX_FRAMES, type VolumeLimits } from './limits.ts';
import type { Layer } from './memory.ts';
import type { BlockRange } from './record.ts';
import { type FrameSpan, orderSpans } from './segment.ts';

/** Runs of consecutive blocks, ascending, cut at frames' size. */
export function spansOf(layer: Layer): FrameSpan[] {
  const blocks = Float64Array.from(layer.blocks.keys()).sort();
  const spans: { lba: number; blocks: number }[] = [];
  let last: { lba: number; blocks: number } | undefined;
  for (const block of blocks) {
    if (last !== undefined && block === last.lba + last.blocks && last.blocks < FRAME_MAX_BLOCKS) {
      last.blocks += 1;
    } else {
      last = { lba: block, blocks: 1 };
      spans.push(last);
    }
  }
  return spans;
}

export interface BatchPlan {
  /** Frames of each segment that becomes an object of its own. */
  readonly segments: readonly FrameSpan[][];
  /** Frames in the commit object itself. */
  readonly inline: FrameSpan[];
}

/** Cuts a layer into segments of at most `segmentBytes`; what is left over, up to `inlineBytes`, stays inline. */
export function planBatch(layer: Layer, limits: VolumeLimits, inlineBytes: number): BatchPlan {
  const spans = spansOf(layer);
  const segments: FrameSpan[][] = [];
  let leftBytes = layer.bytes;
  let at = 0;
  while (leftBytes > inlineBytes) {
    const segment: FrameSpan[] = [];
    let segmentBytes = 0;
    for (let span = spans[at]; span !== undefined; span = spans[at]) {
      const bytes = span.blocks * BLOCK_BYTES;
      if (segmentBytes + bytes > limits.segmentBytes || segment.length === SEGMENT_MAX_FRAMES) break;
      segment.push(span);
      segmentBytes += bytes;
      at += 1;
    }
    segments.push(orderSpans(segment));
    leftBytes -= segmentBytes;
  }
  return { segments, inline: orderSpans(spans.slice(at)) };
}

export function trimsOf(layer: Layer): BlockRange[] {
  return [...layer.trims].map(({ start, end }) => ({ lba: start, count: end - start }));
}
