import { isPosternError } from '../../shared/errors.ts';
import { FieldReader } from './fields.ts';
import { Tree } from './index/tree.ts';
import type { InspectedVolume } from './inspect.ts';
import { BLOCK_BYTES, PAGE_ENTRIES } from './limits.ts';
import { loadManifest } from './manifest.ts';
import {
  CLAIM_PREFIX,
  COMMIT_PREFIX,
  claimName,
  commitName,
  parseWrapName,
  SEGMENT_PREFIX,
  WRAP_PREFIX,
} from './names.ts';
import type { Progress } from './progress.ts';
import type { FreedObject } from './record.ts';
import { DIRECTORY_LBA, equalBytes, openFrame, SivBuilder, segmentSeal } from './seal.ts';
import {
  blockCount,
  decodeSpans,
  type FrameSpan,
  frameCount,
  frameRange,
  location,
  locationSegment,
  type SegmentEntry,
  segmentBytes,
  segmentObjectName,
} from './segment.ts';

/** Problems that one report lists; what follows is counted. */
const PROBLEMS_MAX = 100;

export interface CheckReport {
  segments: number;
  blocks: number;
  bytes: number;
  snapshots: number;
  orphans: number;
  orphanBytes: number;
  problemCount: number;
  readonly problems: string[];
}

/**
 * Reads every reachable byte and verifies it: each segment whole against its siv, each place of the index against the
 * directory of its segment, live counts against places, snapshots the same way. Says what nothing refers to.
 */
export async function checkVolume(
  volume: InspectedVolume,
  onProgress: Progress = () => undefined,
): Promise<CheckReport> {
  const check = new Check(volume, onProgress);
  await check.segments();
  await check.places();
  await check.snapshots();
  await check.orphans();
  return check.report;
}

class Check {
  readonly #volume: InspectedVolume;
  readonly #onProgress: Progress;
  readonly #names = new Set<string>();
  #liveBlocks = 0;
  readonly report: CheckReport = {
    segments: 0,
    blocks: 0,
    bytes: 0,
    snapshots: 0,
    orphans: 0,
    orphanBytes: 0,
    problemCount: 0,
    problems: [],
  };

  constructor(volume: InspectedVolume, onProgress: Progress) {
    this.#volume = volume;
    this.#onProgress = onProgress;
  }

  async segments(): Promise<void> {
    const { index, head } = this.#volume;
    let segmentCount = 0;
    for await (const _ of index.segments(head.record.nextSegment)) segmentCount += 1;
    for await (const { number, entry } of index.segments(head.record.nextSegment)) {
      const { segments, bytes } = this.report;
      this.#onProgress({ step: 'reading segments', segments, of: segmentCount, bytes });
      this.#names.add(segmentObjectName(entry));
      await this.#try(`segment ${number}`, async () => {
        const spans = await this.#segment(entry);
        if (entry.kind === 'data' || entry.kind === 'inline') await this.#live(number, spans);
      });
      this.report.segments += 1;
    }
  }

  /** Every place of the index is one that some segment's directory answers for, and no more than those. */
  async places(): Promise<void> {
    const { head } = this.#volume;
    this.#onProgress({ step: 'reading the index' });
    await this.#try('index', async () => {
      let found = 0;
      for await (const count of this.#eachLeaf(Math.ceil(head.record.sizeBytes / BLOCK_BYTES)))
        found += count;
      if (found !== this.#liveBlocks) {
        this.#problem(`the index names ${found} blocks, of which segments hold ${this.#liveBlocks}`);
      }
      this.report.blocks = found;
    });
  }

  async *#eachLeaf(endBlock: number): AsyncGenerator<number> {
    const { index } = this.#volume;
    const leaves = new Set<number>();
    for (const block of index.current.blocks.keys()) leaves.add(Math.floor(block / PAGE_ENTRIES));
    for await (const { number } of index.base.index.leaves(Math.ceil(endBlock / PAGE_ENTRIES)))
      leaves.add(number);
    for (const leaf of leaves) {
      const places = await index.places(leaf * PAGE_ENTRIES, PAGE_ENTRIES);
      yield places.reduce((count, place) => count + (place === 0 ? 0 : 1), 0);
    }
  }

  async snapshots(): Promise<void> {
    const { checkpoint, index, objects, ring } = this.#volume;
    for (const snapshot of checkpoint.snapshots) {
      this.report.snapshots += 1;
      this.#onProgress({ step: `reading snapshot ${snapshot.name}`, bytes: this.report.bytes });
      await this.#try(`snapshot ${snapshot.name}`, async () => {
        for (const { entry } of snapshot.manifest) {
          this.#names.add(segmentObjectName(entry));
          await this.#segment(entry);
        }
        const manifest = await loadManifest(snapshot.manifest, objects, ring);
        const tree = new Tree('index', snapshot.indexRoot, index.pages);
        const endBlock = Math.ceil(snapshot.sizeBytes / BLOCK_BYTES);
        for await (const { bytes } of tree.leaves(Math.ceil(endBlock / PAGE_ENTRIES))) {
          for (let at = 0; at < BLOCK_BYTES; at += 8) {
            const place = bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
            if (place === 0) continue;
            const segment = locationSegment(place);
            if (manifest.liveBlocks(segment) === 0 || (await index.segment(segment)) === undefined) {
              this.#problem(`snapshot ${snapshot.name} needs segment ${segment}, which is not kept for it`);
            }
          }
        }
      });
    }
  }

  /** What the store holds and nothing refers to: left behind by crashes and by instances that were shut out. */
  async orphans(): Promise<void> {
    this.#onProgress({ step: 'looking for orphans' });
    const { objects, tail, head, checkpoint } = this.#volume;
    for (const { point } of [...tail, head]) this.#names.add(commitName(point.epoch, point.seq));
    for (const object of checkpoint.freed) this.#names.add(freedName(object));
    for (const prefix of [SEGMENT_PREFIX, COMMIT_PREFIX, CLAIM_PREFIX, WRAP_PREFIX]) {
      for (let after: string | undefined; ; ) {
        const page = await objects.list(prefix, after);
        for (const { key, sizeBytes } of page.objects) {
          if (this.#names.has(key) || this.#mayBeNeeded(key)) continue;
          this.report.orphans += 1;
          this.report.orphanBytes += sizeBytes;
        }
        if (!page.truncated) break;
        after = page.objects.at(-1)?.key;
      }
    }
  }

  /** Claims of attaches under way; wraps of generations that are in use, or that a rekey began. */
  #mayBeNeeded(key: string): boolean {
    const { point, record } = this.#volume.head;
    if (key.startsWith(CLAIM_PREFIX)) return key >= claimName(point.epoch);
    const generation = parseWrapName(key);
    return generation !== undefined && generation >= record.oldestGeneration;
  }

  /** Reads a segment whole, opens every frame, and computes its siv again. */
  async #segment(entry: SegmentEntry): Promise<FrameSpan[]> {
    const frames = frameCount(entry);
    if (frames === 0) return [];
    const { objects, ring } = this.#volume;
    const keys = await ring.open(entry.generation);
    const seal = segmentSeal(keys, ring.volume.volumeId, entry.id, entry.siv);
    const length = segmentBytes(entry);
    const bytes = await objects.need(segmentObjectName(entry), { offset: entry.baseOffset, length });
    const part = (frame: number): Buffer => {
      const range = frameRange(entry, frame);
      return bytes.subarray(range.offset - entry.baseOffset, range.offset - entry.baseOffset + range.length);
    };
    const name = `directory of ${segmentObjectName(entry)}`;
    const directory = openFrame(seal, frames, { lba: DIRECTORY_LBA, blocks: 0 }, part(frames));
    const spans = decodeSpans(new FieldReader(directory, name), frames);
    const siv = new SivBuilder(keys, ring.volume.volumeId, entry.id);
    for (const [frame, span] of spans.entries()) siv.update(openFrame(seal, frame, span, part(frame)));
    siv.update(directory);
    if (!equalBytes(siv.finish(), entry.siv)) this.#problem(`${segmentObjectName(entry)} has another siv`);
    this.report.bytes += length;
    return spans;
  }

  async #live(number: number, spans: readonly FrameSpan[]): Promise<void> {
    const { index, tail } = this.#volume;
    let live = 0;
    for (const [frame, span] of spans.entries()) {
      const places = await index.places(span.lba, span.blocks);
      for (let at = 0; at < span.blocks; at += 1) if (places[at] === location(number, frame, at)) live += 1;
    }
    this.#liveBlocks += live;
    const entry = await index.segment(number);
    // The table's counts are as of the checkpoint: they are exact where nothing was committed since.
    const isExact = tail.every(({ record }) => record.groups.every(isEmptyGroup));
    if (isExact && entry !== undefined && entry.liveBlocks !== live && !index.current.segments.has(number)) {
      this.#problem(
        `segment ${number} counts ${entry.liveBlocks} live blocks of ${blockCount(entry)} and has ${live}`,
      );
    }
  }

  async #try(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!isPosternError(error) || error.code === 'ERR_VOLUME_UNAVAILABLE') throw error;
      this.#problem(`${what}: ${error.code}: ${error.message}`);
    }
  }

  #problem(text: string): void {
    this.report.problemCount += 1;
    if (this.report.problems.length < PROBLEMS_MAX) this.report.problems.push(text);
  }
}

function isEmptyGroup(group: {
  readonly trims: readonly unknown[];
  readonly segments: readonly { spans: readonly unknown[] }[];
}): boolean {
  return group.trims.length === 0 && group.segments.every(({ spans }) => spans.length === 0);
}

function freedName(object: FreedObject): string {
  if (object.kind === 'commit') return commitName(object.epoch, object.seq);
  const id = object.id.toString('hex');
  return `${SEGMENT_PREFIX}${id.slice(0, 2)}/${id}`;
}
