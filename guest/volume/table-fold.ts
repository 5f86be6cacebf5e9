import { PosternError } from '../../shared/errors.ts';
import type { CommitSealer } from './commit-sealer.ts';
import type { VolumeEnvironment } from './environment.ts';
import { type EntryDecision, type LiveCounts, MovedPages, tableChanges } from './fold.ts';
import type { FrameReader } from './frames.ts';
import { type PageChanges, rebuild } from './index/rebuild.ts';
import { parsePageLba } from './index/tree.ts';
import type { VolumeIndex } from './index/volume-index.ts';
import type { KeyRing } from './keyring.ts';
import { FREED_MAX, TABLE_SEGMENTS_MAX, type VolumeLimits } from './limits.ts';
import type { Manifest } from './manifest.ts';
import type { VolumeObjects } from './objects.ts';
import { PageWriter } from './page-writer.ts';
import type { Reaper } from './reaper.ts';
import type { FreedObject, NumberedSegment } from './record.ts';
import { blockCount, locationSegment, type SegmentEntry } from './segment.ts';

/** Segments that are remembered for repacking; those past it are found by the next sweep. */
const CANDIDATES_MAX = 16_384;
/** New segments after which a checkpoint looks at the whole table, for the small ones that flushes leave behind. */
const SWEEP_SEGMENTS = 32_768;
/** A commit's own frames, when they are no more than 256 KiB, are better off together with others. */
const SMALL_BLOCKS = 64;
/**
 * Where a commit's own frames are no more than 64 KiB, two GETs cost more than what half of them takes up: who flushes all
 * the time leaves hundreds a second, most of which die before the next sweep looks at them.
 */
const TINY_BLOCKS = 16;

export interface TableFoldParts {
  readonly objects: VolumeObjects;
  readonly ring: KeyRing;
  readonly environment: VolumeEnvironment;
  readonly limits: VolumeLimits;
  readonly index: VolumeIndex;
  readonly frames: FrameReader;
  readonly sealer: CommitSealer;
  readonly reaper: Reaper;
}

export interface WrittenTree {
  readonly root: number;
  readonly segments: readonly NumberedSegment[];
}

/** What one checkpoint knows of segments. */
export interface TableWork {
  /** Segments that commits and this checkpoint brought. */
  readonly added: ReadonlyMap<number, SegmentEntry>;
  readonly live: LiveCounts;
  /** What snapshots pin. */
  readonly manifests: readonly Manifest[];
  /** Set where a snapshot is restored: its counts replace all others. */
  readonly restored: Manifest | undefined;
  readonly sweep: boolean;
  /** Grows by what is freed. */
  readonly freed: FreedObject[];
}

/** The segment table's part of a checkpoint: counts what is alive, frees what is dead, remembers what is sparse. */
export class TableFold {
  readonly #parts: TableFoldParts;
  #needsSweep = false;
  #isSweeping = false;
  #sweptTo: number;
  readonly candidates = new Set<number>();

  constructor(parts: TableFoldParts) {
    this.#parts = parts;
    this.#sweptTo = parts.sealer.nextSegment;
  }

  /** Writes the table's next version, and adds to `work.freed` what nothing needs any more. */
  async run(work: TableWork): Promise<WrittenTree> {
    const { added, live, freed } = work;
    const own = new Map(this.#parts.index.base.tableSegments);
    const { nextSegment } = this.#parts.sealer;
    const sweep = this.#needsSweep || work.sweep || nextSegment - this.#sweptTo >= SWEEP_SEGMENTS;
    this.#needsSweep = false;
    this.#isSweeping = sweep;
    if (sweep) this.#sweptTo = nextSegment;
    const decide = this.#decision(work);
    const moved = await this.#sparseTablePages(own);
    const numbers = [...live.changes.keys(), ...added.keys()];
    const changes = tableChanges(numbers, added, live, decide, sweep, moved);
    const written = await writePages(this.#parts, 'table', changes, (place) => {
      const number = locationSegment(place);
      const entry = own.get(number);
      if (entry === undefined)
        throw new RangeError(`table page in segment ${number}, which is none of the table's`);
      own.set(number, { ...entry, liveBlocks: entry.liveBlocks - 1 });
    });
    const segments: NumberedSegment[] = [];
    for (const [number, entry] of own) {
      if (entry.liveBlocks > 0) segments.push({ number, entry });
      else freed.push({ kind: 'segment', id: entry.id });
    }
    segments.push(...written.segments);
    if (segments.length > TABLE_SEGMENTS_MAX) {
      throw new PosternError('ERR_VOLUME_LIMIT', `a segment table in ${segments.length} segments`);
    }
    return { root: written.root, segments };
  }

  /** Pages of the sparser half of the table's segments, once there are many, and of those under older keys. */
  async #sparseTablePages(own: ReadonlyMap<number, SegmentEntry>): Promise<MovedPages> {
    const moved = new MovedPages();
    const { table } = this.#parts.index.base;
    const { generation } = this.#parts.sealer;
    const half = own.size < TABLE_SEGMENTS_MAX / 2 ? 0 : own.size / 2;
    const sparsest = [...own].sort(([, a], [, b]) => a.liveBlocks - b.liveBlocks).slice(0, half);
    const old = [...own].filter(([, entry]) => entry.generation < generation);
    for (const [number] of [...sparsest, ...old]) {
      const { spans } = await this.#parts.frames.directory(number);
      for (const { lba } of spans) {
        const at = parsePageLba('table', lba);
        if (at === undefined) continue;
        const place = await table.placeOf(at.level, at.page);
        if (place !== 0 && locationSegment(place) === number) moved.add(at.level, at.page);
      }
    }
    return moved;
  }

  /** What becomes of an entry: freed when nothing refers to it, remembered when little does. */
  #decision({ manifests, restored, freed }: TableWork): EntryDecision {
    const { limits, reaper, frames, sealer } = this.#parts;
    const room = FREED_MAX - reaper.waiting.length - 2 * TABLE_SEGMENTS_MAX;
    return (number, before) => {
      const entry = restored ? { ...before, liveBlocks: restored.liveBlocks(number) } : before;
      const isPinned = manifests.some((manifest) => manifest.liveBlocks(number) > 0);
      if (entry.liveBlocks === 0 && !isPinned) {
        if (freed.length >= room) {
          this.#needsSweep = true;
          return entry;
        }
        freed.push(freedObject(entry));
        frames.forget(number);
        this.candidates.delete(number);
        return undefined;
      }
      const blocks = blockCount(entry);
      const isTiny = entry.kind === 'inline' && blocks <= TINY_BLOCKS;
      const isSparse = entry.liveBlocks < limits.repackBelow * blocks && (this.#isSweeping || !isTiny);
      const isSmall = this.#isSweeping && entry.kind === 'inline' && blocks <= SMALL_BLOCKS;
      const isOld = entry.generation < sealer.generation;
      if (
        (isSparse || isOld || isSmall) &&
        entry.liveBlocks > 0 &&
        !isPinned &&
        this.candidates.size < CANDIDATES_MAX
      ) {
        this.candidates.add(number);
      }
      return entry;
    };
  }
}

/** Writes the pages of a tree that differ; they are durable when it resolves. */
export async function writePages(
  parts: TableFoldParts,
  kind: 'index' | 'table',
  changes: PageChanges,
  release: (place: number) => void,
): Promise<WrittenTree> {
  const { index, environment } = parts;
  const writer = new PageWriter(kind, {
    ...parts,
    pages: index.pages,
    pause: () => environment.pause(),
  });
  const emit = (level: number, page: number, bytes: Buffer) => writer.emit(level, page, bytes);
  const root = await rebuild(index.base[kind], changes, { emit, release });
  return { root, segments: await writer.finish() };
}

function freedObject(entry: SegmentEntry): FreedObject {
  if (entry.kind === 'inline') return { kind: 'commit', epoch: entry.epoch, seq: entry.seq };
  return { kind: 'segment', id: entry.id };
}
