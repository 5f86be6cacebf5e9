import { deriveGenerationKeys, deriveVolumeKeys } from '../../guest/volume/keys.ts';
import type { CommitRecord } from '../../guest/volume/record.ts';
import { countFrames, type FrameSpan, type SegmentEntry } from '../../guest/volume/segment.ts';

/** Fixed inputs of the vectors: bytes that count up from `first`. */
export function counting(length: number, first = 0): Buffer {
  return Buffer.from(Array.from({ length }, (_, index) => (first + index) & 0xff));
}

export const VOLUME_ID = counting(16, 0x10);
export const GENERATION_KEY = counting(32, 0x20);
export const BASE_KEY = counting(32, 0x40);
export const KEYS = deriveGenerationKeys(GENERATION_KEY, VOLUME_ID, 1);
export const VOLUME = deriveVolumeKeys(BASE_KEY, VOLUME_ID);

export function sampleEntry(spans: readonly FrameSpan[], over: Partial<SegmentEntry> = {}): SegmentEntry {
  return {
    kind: 'data',
    generation: 1,
    id: counting(16, 0x60),
    siv: counting(32, 0x70),
    frameCounts: countFrames(spans),
    liveBlocks: 0,
    epoch: 0,
    seq: 0,
    baseOffset: 0,
    ...over,
  };
}

export function sampleRecord(over: Partial<CommitRecord> = {}): CommitRecord {
  return {
    attach: false,
    detach: false,
    deletion: false,
    prevEpoch: 3,
    prevHash: counting(32, 0x90),
    sizeBytes: 1 << 30,
    oldestGeneration: 1,
    nextSegment: 9,
    checkpointEpoch: 2,
    checkpointSeq: 1,
    timeMs: 1_700_000_000_000,
    nonce: Buffer.alloc(0),
    frontier: { size: 5, hashes: [counting(32, 1), counting(32, 2)] },
    groups: [],
    checkpoint: undefined,
    restoreToken: undefined,
    ...over,
  };
}
