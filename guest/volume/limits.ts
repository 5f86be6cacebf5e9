/** The unit of the index, and of everything that is sealed. */
export const BLOCK_BYTES = 4096;
/** Blocks in one frame, the AEAD's unit: 64 KiB, where AES-GCM runs at full speed and a cold 4 KiB read stays small. */
export const FRAME_MAX_BLOCKS = 16;
/** AES-GCM's tag after each frame. */
export const TAG_BYTES = 16;
/** 12 bits of a location; 4096 frames of one block are exactly a full segment. */
export const SEGMENT_MAX_FRAMES = 4096;
export const SEGMENT_MAX_BLOCKS = 4096;
/** A page of the index is one block of 8-byte entries. */
export const PAGE_ENTRIES = 512;
/** Levels of the index: leaves, and three above them; 512^4 blocks are 256 TiB. */
export const INDEX_LEVELS = 4;
export const VOLUME_MAX_BYTES = PAGE_ENTRIES ** INDEX_LEVELS * BLOCK_BYTES;
/** Entries of SEGMENT_ENTRY_BYTES in one page of the segment table. */
export const TABLE_PAGE_ENTRIES = 32;

/** Largest commit record that is written or read: sixteen spills of two full segments and 4096 holes are 1.8 MiB. */
export const RECORD_MAX_BYTES = 4 * 1024 * 1024;
/** Freed intervals that one layer or record holds before it is committed by itself. */
export const TRIMS_MAX = 4096;
export const SNAPSHOTS_MAX = 256;
export const SNAPSHOT_NAME_MAX_BYTES = 64;
/** Objects that hold one snapshot's list of segments; 8 of 8 MiB list 6 million segments. */
export const MANIFEST_SEGMENTS_MAX = 8;
/** Segments that hold pages of the segment table; past half of it the sparsest are rewritten. */
export const TABLE_SEGMENTS_MAX = 128;
/** Freed objects that one checkpoint names for deletion; the rest waits for the next. */
export const FREED_MAX = 8192;
/** Generations of keys that are alive at once. */
export const GENERATIONS_MAX = 16;
/** Commits between a checkpoint and the head that an attach is willing to read. */
export const TAIL_MAX_COMMITS = 16_384;

/** What an engine is tuned with. All of it is bounded memory or bounded work; the defaults fit 256 MiB in all. */
export interface VolumeLimits {
  /** Dirty and in-flight plaintext; past it writes wait. */
  readonly dirtyBytes: number;
  /** Dirty bytes that are put into a segment before anybody asks for a flush. */
  readonly spillBytes: number;
  /** Plaintext of one segment. */
  readonly segmentBytes: number;
  /** A flush of up to this many dirty bytes is one object. */
  readonly inlineBytes: number;
  /** W: commits whose PUT may be in flight together, and how far an attach rolls forward. */
  readonly pipelineCommits: number;
  /** Spills that make a commit of their own accord; at twice that, writes wait for it, which bounds the record. */
  readonly spillsPerCommit: number;
  /** Large objects whose sealed bytes are in memory at once. */
  readonly largePuts: number;
  readonly checkpointCommits: number;
  /** Changed blocks in memory after which a checkpoint is due; at twice that, writes wait for it. */
  readonly checkpointBlocks: number;
  /** Index and table pages kept in memory. */
  readonly pageCacheBytes: number;
  /** Decrypted frames kept in memory. */
  readonly readCacheBytes: number;
  /** What one sequential reader is read ahead, at most. */
  readonly readAheadBytes: number;
  /** One range GET of a read, at most. */
  readonly readBytes: number;
  /** GETs of reads and read-ahead in flight. */
  readonly readRequests: number;
  /** How long one request of the store or the anchor may take before it is tried again. */
  readonly attemptMs: number;
  /**
   * How long the store or the anchor may be out of reach before requests fail. One for reads and writes: to a file system
   * an error of either is the end, so the shorter of two would be the only one that counts.
   */
  readonly outageTimeoutMs: number;
  /** Between a free that is anchored and the DELETE. */
  readonly deleteGraceMs: number;
  /** How often an instance asks the anchor whether it still has the volume, for when it commits nothing itself. */
  readonly fenceCheckMs: number;
  /** Segments with less than this share alive are rewritten. */
  readonly repackBelow: number;
}

/** A parent's host reboots and its object store fails over within this; a person who waits for a disk gives up later. */
export const OUTAGE_DEFAULT_MS = 300_000;
const MIB = 1024 * 1024;

export const DEFAULT_LIMITS: VolumeLimits = {
  dirtyBytes: 24 * MIB,
  spillBytes: 16 * MIB,
  segmentBytes: 8 * MIB,
  inlineBytes: 8 * MIB,
  pipelineCommits: 4,
  spillsPerCommit: 8,
  largePuts: 3,
  checkpointCommits: 256,
  checkpointBlocks: 64 * 1024,
  pageCacheBytes: 12 * MIB,
  readCacheBytes: 16 * MIB,
  readAheadBytes: 8 * MIB,
  readBytes: MIB,
  readRequests: 8,
  attemptMs: 20_000,
  outageTimeoutMs: OUTAGE_DEFAULT_MS,
  deleteGraceMs: 60_000,
  fenceCheckMs: 30_000,
  repackBelow: 0.5,
};

/** @throws RangeError for limits that the engine cannot work within. */
export function checkLimits(limits: VolumeLimits): void {
  const frameBytes = FRAME_MAX_BLOCKS * BLOCK_BYTES;
  if (limits.segmentBytes < frameBytes || limits.segmentBytes > SEGMENT_MAX_BLOCKS * BLOCK_BYTES) {
    throw new RangeError(`segmentBytes ${limits.segmentBytes}`);
  }
  if (limits.inlineBytes > limits.segmentBytes) throw new RangeError(`inlineBytes ${limits.inlineBytes}`);
  // A layer is cut into at most so many segments, which the record's decoder counts.
  if (limits.dirtyBytes < BLOCK_BYTES || limits.dirtyBytes > 32 * limits.segmentBytes) {
    throw new RangeError(`dirtyBytes ${limits.dirtyBytes}`);
  }
  // The pages from the root to one leaf, in both trees, or a lookup could chase its own evictions.
  if (limits.pageCacheBytes < 4 * INDEX_LEVELS * BLOCK_BYTES) {
    throw new RangeError(`pageCacheBytes ${limits.pageCacheBytes}`);
  }
  if (limits.spillsPerCommit < 1 || limits.spillsPerCommit > 24) {
    throw new RangeError(`spillsPerCommit ${limits.spillsPerCommit}`);
  }
}
