import { FieldReader, FieldWriter } from './fields.ts';
import { checkFrontier, FRONTIER_MAX, type Frontier } from './frontier.ts';
import {
  FREED_MAX,
  GENERATIONS_MAX,
  MANIFEST_SEGMENTS_MAX,
  SEGMENT_MAX_FRAMES,
  SNAPSHOT_NAME_MAX_BYTES,
  SNAPSHOTS_MAX,
  TABLE_SEGMENTS_MAX,
  TRIMS_MAX,
  VOLUME_MAX_BYTES,
} from './limits.ts';
import {
  countFrames,
  DIRECTORY_ENTRY_BYTES,
  decodeSegmentEntry,
  decodeSpans,
  encodeSegmentEntry,
  encodeSpans,
  type FrameSpan,
  SEGMENT_ENTRY_BYTES,
  type SegmentEntry,
} from './segment.ts';

/** Random bytes that an attach commits. */
export const NONCE_BYTES = 32;
/** Groups of one record: its spills, and what it carries itself. */
const GROUPS_MAX = 64;
const SEGMENTS_PER_GROUP_MAX = 64;
const TOKEN_MAX_BYTES = 1024;
const ID_BYTES = 16;

const FLAGS = { attach: 1, detach: 2, checkpoint: 4, restore: 8, deletion: 16 } as const;
const ALL_FLAGS = 31;

/** What one commit says, in order of the fields of format.md, "Commit record". */
export interface CommitRecord {
  readonly attach: boolean;
  /** The volume was given up in order: the next attach needs no takeover. */
  readonly detach: boolean;
  /** The last commit there is: whoever made it deletes the volume, and nobody attaches it any more. */
  readonly deletion: boolean;
  readonly prevEpoch: number;
  readonly prevHash: Buffer;
  readonly sizeBytes: number;
  /** Generations older than this one seal nothing that is reachable. */
  readonly oldestGeneration: number;
  readonly nextSegment: number;
  /** The commit that carries the newest checkpoint; this one, where it has one. */
  readonly checkpointEpoch: number;
  readonly checkpointSeq: number;
  /** The guest's clock, for people only. */
  readonly timeMs: number;
  /** NONCE_BYTES where `attach`, else empty. */
  readonly nonce: Buffer;
  /** The log before this commit's own leaf; its size is the sequence number. */
  readonly frontier: Frontier;
  readonly groups: readonly DeltaGroup[];
  /** Objects that no commit from this one on refers to; they may be deleted once it is anchored. */
  readonly checkpoint: Checkpoint | undefined;
  /** The owner's authorisation of a restore, kept for whoever audits; empty where none was asked for. */
  readonly restoreToken: Buffer | undefined;
}

/** One step of the index: first the blocks that became holes, then those that were written. */
export interface DeltaGroup {
  readonly trims: readonly BlockRange[];
  readonly segments: readonly DeltaSegment[];
}

export interface BlockRange {
  readonly lba: number;
  readonly count: number;
}

export interface DeltaSegment {
  readonly number: number;
  readonly entry: SegmentEntry;
  readonly spans: readonly FrameSpan[];
}

export interface NumberedSegment {
  readonly number: number;
  readonly entry: SegmentEntry;
}

/** The state as of commit `coversSeq`, to which the deltas of the commits after it are added. */
export interface Checkpoint {
  readonly coversSeq: number;
  /** Locations of the top pages; 0: all holes. */
  readonly indexRoot: number;
  readonly tableRoot: number;
  /** Segments that hold pages of the table itself, which therefore cannot be in it. */
  readonly tableSegments: readonly NumberedSegment[];
  readonly freed: readonly FreedObject[];
  readonly snapshots: readonly Snapshot[];
}

/** An object to delete: a segment by its id, or a commit by its place. */
export type FreedObject =
  | { readonly kind: 'segment'; readonly id: Buffer }
  | { readonly kind: 'commit'; readonly epoch: number; readonly seq: number };

export interface Snapshot {
  readonly id: Buffer;
  readonly name: string;
  readonly timeMs: number;
  /** The commit whose state it is. */
  readonly seq: number;
  readonly sizeBytes: number;
  readonly indexRoot: number;
  /** Segments that list what the snapshot pins. */
  readonly manifest: readonly NumberedSegment[];
}

export function encodeRecord(record: CommitRecord): Buffer {
  const writer = new FieldWriter(4096);
  const { attach, detach, deletion, checkpoint, restoreToken } = record;
  const flags =
    (attach ? FLAGS.attach : 0) |
    (detach ? FLAGS.detach : 0) |
    (checkpoint ? FLAGS.checkpoint : 0) |
    (restoreToken ? FLAGS.restore : 0) |
    (deletion ? FLAGS.deletion : 0);
  writer.u32(flags).u64(record.prevEpoch).raw(record.prevHash).u64(record.sizeBytes);
  writer.u32(record.oldestGeneration).u64(record.nextSegment);
  writer.u64(record.checkpointEpoch).u64(record.checkpointSeq).u64(record.timeMs).raw(record.nonce);
  writer.u8(record.frontier.hashes.length);
  for (const hash of record.frontier.hashes) writer.raw(hash);
  writer.u16(record.groups.length);
  for (const group of record.groups) encodeGroup(writer, group);
  if (checkpoint) encodeCheckpoint(writer, checkpoint);
  if (restoreToken) writer.u16(restoreToken.length).raw(restoreToken);
  return writer.finish();
}

/** @throws ERR_VOLUME_CORRUPT naming `source`. `seq` is the commit's own. */
export function decodeRecord(bytes: Buffer, seq: number, source: string): CommitRecord {
  const reader = new FieldReader(bytes, source);
  const flags = reader.u32();
  if (flags > ALL_FLAGS) throw reader.corrupt(`flags ${flags}`);
  const attach = (flags & FLAGS.attach) !== 0;
  const front = {
    attach,
    detach: (flags & FLAGS.detach) !== 0,
    deletion: (flags & FLAGS.deletion) !== 0,
    prevEpoch: reader.u64(),
    prevHash: Buffer.from(reader.raw(32)),
    sizeBytes: reader.u64(),
    oldestGeneration: reader.u32(),
    nextSegment: reader.u64(),
    checkpointEpoch: reader.u64(),
    checkpointSeq: reader.u64(),
    timeMs: reader.u64(),
    nonce: Buffer.from(reader.raw(attach ? NONCE_BYTES : 0)),
  };
  if (front.sizeBytes > VOLUME_MAX_BYTES) throw reader.corrupt(`a volume of ${front.sizeBytes} bytes`);
  if (front.checkpointSeq > seq) throw reader.corrupt('a checkpoint after itself');
  const hashCount = reader.count(reader.u8(), FRONTIER_MAX, 32, 'log hashes');
  const hashes = Array.from({ length: hashCount }, () => Buffer.from(reader.raw(32)));
  const frontier = { size: seq, hashes };
  checkFrontier(frontier);
  const groupCount = reader.count(reader.u16(), GROUPS_MAX, 6, 'groups');
  const groups = Array.from({ length: groupCount }, () => decodeGroup(reader, source));
  const checkpoint = (flags & FLAGS.checkpoint) !== 0 ? decodeCheckpoint(reader, source) : undefined;
  const restoreToken = (flags & FLAGS.restore) !== 0 ? decodeToken(reader) : undefined;
  reader.end();
  if (checkpoint && checkpoint.coversSeq > seq) throw reader.corrupt('a checkpoint of what comes after it');
  return { ...front, frontier, groups, checkpoint, restoreToken };
}

function encodeGroup(writer: FieldWriter, group: DeltaGroup): void {
  writer.u32(group.trims.length);
  for (const { lba, count } of group.trims) writer.u48(lba).u48(count);
  writer.u16(group.segments.length);
  for (const { number, entry, spans } of group.segments) {
    writer.u48(number).raw(encodeSegmentEntry(entry)).u16(spans.length).raw(encodeSpans(spans));
  }
}

function decodeGroup(reader: FieldReader, source: string): DeltaGroup {
  const trimCount = reader.count(reader.u32(), TRIMS_MAX, 12, 'freed ranges');
  const trims = Array.from({ length: trimCount }, () => ({ lba: reader.u48(), count: reader.u48() }));
  const segmentCount = reader.count(
    reader.u16(),
    SEGMENTS_PER_GROUP_MAX,
    6 + SEGMENT_ENTRY_BYTES + 2,
    'segments',
  );
  const segments = Array.from({ length: segmentCount }, () => decodeDeltaSegment(reader, source));
  return { trims, segments };
}

function decodeDeltaSegment(reader: FieldReader, source: string): DeltaSegment {
  const { number, entry } = decodeNumbered(reader, source);
  const spanCount = reader.count(reader.u16(), SEGMENT_MAX_FRAMES, DIRECTORY_ENTRY_BYTES, 'frames');
  const spans = decodeSpans(reader, spanCount);
  const counts = countFrames(spans);
  if (!counts.every((count, index) => count === entry.frameCounts[index])) {
    throw reader.corrupt(`segment ${number} has other frames than it counts`);
  }
  return { number, entry, spans };
}

function encodeNumbered(writer: FieldWriter, segments: readonly NumberedSegment[]): void {
  for (const { number, entry } of segments) writer.u48(number).raw(encodeSegmentEntry(entry));
}

function decodeNumbered(reader: FieldReader, source: string): NumberedSegment {
  const number = reader.u48();
  const entry = decodeSegmentEntry(reader.raw(SEGMENT_ENTRY_BYTES), source);
  if (entry === undefined || number === 0) throw reader.corrupt(`segment ${number} is empty`);
  return { number, entry };
}

function encodeCheckpoint(writer: FieldWriter, checkpoint: Checkpoint): void {
  writer.u64(checkpoint.coversSeq).u64(checkpoint.indexRoot).u64(checkpoint.tableRoot);
  writer.u16(checkpoint.tableSegments.length);
  encodeNumbered(writer, checkpoint.tableSegments);
  writer.u32(checkpoint.freed.length);
  for (const object of checkpoint.freed) {
    if (object.kind === 'segment') writer.u8(1).raw(object.id);
    else writer.u8(2).u64(object.epoch).u64(object.seq);
  }
  writer.u16(checkpoint.snapshots.length);
  for (const snapshot of checkpoint.snapshots) encodeSnapshot(writer, snapshot);
}

function decodeCheckpoint(reader: FieldReader, source: string): Checkpoint {
  const front = { coversSeq: reader.u64(), indexRoot: reader.u64(), tableRoot: reader.u64() };
  const numberedBytes = 6 + SEGMENT_ENTRY_BYTES;
  const tableCount = reader.count(reader.u16(), TABLE_SEGMENTS_MAX, numberedBytes, 'table segments');
  const tableSegments = Array.from({ length: tableCount }, () => decodeNumbered(reader, source));
  const freedCount = reader.count(reader.u32(), FREED_MAX, 1 + ID_BYTES, 'freed objects');
  const freed = Array.from({ length: freedCount }, () => decodeFreed(reader));
  const snapshotCount = reader.count(reader.u16(), SNAPSHOTS_MAX, 50, 'snapshots');
  const snapshots = Array.from({ length: snapshotCount }, () => decodeSnapshot(reader, source));
  return { ...front, tableSegments, freed, snapshots };
}

function decodeFreed(reader: FieldReader): FreedObject {
  const kind = reader.u8();
  if (kind === 1) return { kind: 'segment', id: Buffer.from(reader.raw(ID_BYTES)) };
  if (kind === 2) return { kind: 'commit', epoch: reader.u64(), seq: reader.u64() };
  throw reader.corrupt(`a freed object of kind ${kind}`);
}

function encodeSnapshot(writer: FieldWriter, snapshot: Snapshot): void {
  const name = Buffer.from(snapshot.name, 'utf8');
  writer.raw(snapshot.id).u8(name.length).raw(name).u64(snapshot.timeMs).u64(snapshot.seq);
  writer.u64(snapshot.sizeBytes).u64(snapshot.indexRoot).u8(snapshot.manifest.length);
  encodeNumbered(writer, snapshot.manifest);
}

function decodeSnapshot(reader: FieldReader, source: string): Snapshot {
  const id = Buffer.from(reader.raw(ID_BYTES));
  const nameBytes = reader.count(reader.u8(), SNAPSHOT_NAME_MAX_BYTES, 1, 'bytes of a name');
  const name = reader.text(nameBytes);
  const front = { timeMs: reader.u64(), seq: reader.u64(), sizeBytes: reader.u64(), indexRoot: reader.u64() };
  const manifestCount = reader.count(
    reader.u8(),
    MANIFEST_SEGMENTS_MAX,
    6 + SEGMENT_ENTRY_BYTES,
    'manifest segments',
  );
  const manifest = Array.from({ length: manifestCount }, () => decodeNumbered(reader, source));
  return { id, name, ...front, manifest };
}

function decodeToken(reader: FieldReader): Buffer {
  return Buffer.from(reader.raw(reader.count(reader.u16(), TOKEN_MAX_BYTES, 1, 'bytes of a token')));
}

/** Live generations are consecutive and few. @throws ERR_VOLUME_CORRUPT */
export function checkGenerations(record: CommitRecord, generation: number, source: string): void {
  const { oldestGeneration } = record;
  if (
    oldestGeneration < 1 ||
    oldestGeneration > generation ||
    generation - oldestGeneration >= GENERATIONS_MAX
  ) {
    throw new FieldReader(Buffer.alloc(0), source).corrupt(
      `generations ${oldestGeneration} to ${generation}`,
    );
  }
}
