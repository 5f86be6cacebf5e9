import { PosternError } from '../../shared/errors.ts';
import { recycleBody } from '../../shared/objects/bodies.ts';
import { FieldReader } from './fields.ts';
import type { KeyRing } from './keyring.ts';
import type { VolumeLimits } from './limits.ts';
import { ByteCache } from './lru.ts';
import type { VolumeObjects } from './objects.ts';
import { DIRECTORY_LBA, openFrame, type SegmentSeal, segmentSeal } from './seal.ts';
import {
  decodeSpans,
  type FrameSpan,
  frameCount,
  frameRange,
  type SegmentEntry,
  segmentObjectName,
} from './segment.ts';
import { Semaphore } from './semaphore.ts';

/** Opened segments that are remembered with their keys: 300 bytes each. */
const HANDLES_MAX = 8192;
const FRAME_NUMBERS = 4096;
/** What is read in vain between two frames rather than asked for in two GETs: a GET costs a store more than these bytes. */
const READ_GAP_BYTES = 64 * 1024;

/** One frame to be read: which, and what the index says it holds. */
export interface FrameRequest {
  readonly segment: number;
  readonly frame: number;
  /** First block of the frame. */
  readonly lba: number;
}

interface Handle {
  readonly entry: SegmentEntry;
  readonly seal: SegmentSeal;
}

/** Reads and opens frames: those near each other in one GET, each once at a time, the newest kept in a bounded cache. */
export class FrameReader {
  readonly cache: ByteCache<number>;
  readonly #objects: VolumeObjects;
  readonly #ring: KeyRing;
  readonly #limits: VolumeLimits;
  readonly #lookUp: (segment: number) => Promise<SegmentEntry | undefined>;
  readonly #requests: Semaphore;
  readonly #handles = new Map<number, Handle>();
  readonly #underWay = new Map<number, Promise<Buffer>>();

  constructor(
    objects: VolumeObjects,
    ring: KeyRing,
    limits: VolumeLimits,
    lookUp: (segment: number) => Promise<SegmentEntry | undefined>,
  ) {
    this.#objects = objects;
    this.#ring = ring;
    this.#limits = limits;
    this.#lookUp = lookUp;
    this.cache = new ByteCache(limits.readCacheBytes);
    this.#requests = new Semaphore(limits.readRequests);
  }

  /**
   * Plaintexts in the order asked for. `keep: false` for what nobody will ask for again: it takes no other's place in the cache.
   * @throws ERR_VOLUME_CORRUPT, ERR_VOLUME_MISSING (also for a segment that was freed meanwhile), ERR_VOLUME_UNAVAILABLE
   */
  async read(requests: readonly FrameRequest[], { keep = true } = {}): Promise<Buffer[]> {
    const wanted = new Map<number, FrameRequest>();
    const ready = requests.map((request) => {
      const key = frameKey(request);
      const found = this.cache.get(key) ?? this.#underWay.get(key);
      if (found === undefined) wanted.set(key, request);
      return found;
    });
    if (wanted.size === 0) return Promise.all(ready as (Buffer | Promise<Buffer>)[]);
    const fetched = await this.#fetch([...wanted.values()], keep);
    return Promise.all(
      requests.map((request, index) => {
        const bytes = ready[index] ?? fetched.get(frameKey(request));
        if (bytes === undefined) throw new RangeError('a frame that nobody fetched');
        return bytes;
      }),
    );
  }

  /** The spans of a segment, in the order of its frames. */
  async directory(segment: number): Promise<{ readonly entry: SegmentEntry; readonly spans: FrameSpan[] }> {
    const handle = await this.#handle(segment);
    const frames = frameCount(handle.entry);
    if (frames === 0) return { entry: handle.entry, spans: [] };
    const { offset, length } = frameRange(handle.entry, frames);
    const sealed = await this.#requests.run(() =>
      this.#objects.need(segmentObjectName(handle.entry), { offset, length }),
    );
    const plain = openFrame(handle.seal, frames, { lba: DIRECTORY_LBA, blocks: 0 }, sealed);
    const reader = new FieldReader(plain, `directory of segment ${segment}`);
    return { entry: handle.entry, spans: decodeSpans(reader, frames) };
  }

  /** Forgets a segment that was freed. */
  forget(segment: number): void {
    this.#handles.delete(segment);
  }

  /** Starts the GETs; resolves when each wanted frame is under way. */
  async #fetch(wanted: readonly FrameRequest[], keep: boolean): Promise<Map<number, Promise<Buffer>>> {
    const started = new Map<number, Promise<Buffer>>();
    const handles = new Map<number, Handle>();
    for (const { segment } of wanted) {
      if (!handles.has(segment)) handles.set(segment, await this.#handle(segment));
    }
    const sorted = [...wanted].sort((a, b) => a.segment - b.segment || a.frame - b.frame);
    for (let at = 0; at < sorted.length; ) {
      const first = sorted[at];
      const handle = first && handles.get(first.segment);
      if (first === undefined || handle === undefined)
        throw new RangeError('a segment that was not looked up');
      const run = this.#neighbours(handle, sorted, at);
      at += run.length;
      this.#start(handle, run, started, keep);
    }
    return started;
  }

  #neighbours(handle: Handle, sorted: readonly FrameRequest[], from: number): FrameRequest[] {
    const run: FrameRequest[] = [];
    let start = 0;
    let end = 0;
    for (const request of sorted.slice(from, from + FRAME_NUMBERS)) {
      if (request.segment !== sorted[from]?.segment) break;
      const { offset, length } = frameRange(handle.entry, request.frame);
      if (run.length === 0) start = offset;
      else if (offset - end > READ_GAP_BYTES || offset + length - start > this.#limits.readBytes) break;
      end = offset + length;
      run.push(request);
    }
    return run;
  }

  #start(
    handle: Handle,
    run: readonly FrameRequest[],
    started: Map<number, Promise<Buffer>>,
    keep: boolean,
  ): void {
    // Somebody else may have begun the same frame while this call looked up segments.
    const fresh = run.filter((request) => {
      const other = this.#underWay.get(frameKey(request));
      if (other !== undefined) started.set(frameKey(request), other);
      return other === undefined;
    });
    const first = fresh[0];
    const last = fresh.at(-1);
    if (first === undefined || last === undefined) return;
    const offset = frameRange(handle.entry, first.frame).offset;
    const end = frameRange(handle.entry, last.frame);
    const range = { offset, length: end.offset + end.length - offset };
    const sealed = this.#requests.run(() => this.#objects.need(segmentObjectName(handle.entry), range));
    let left = fresh.length;
    for (const request of fresh) {
      const key = frameKey(request);
      const opened = sealed.then((bytes) => {
        const plain = this.#open(handle, request, bytes, offset);
        if (keep) this.cache.set(frameKey(request), plain);
        left -= 1;
        if (left === 0) recycleBody(bytes);
        return plain;
      });
      this.#underWay.set(key, opened);
      started.set(key, opened);
      const done = (): boolean => this.#underWay.delete(key);
      opened.then(done, done);
    }
  }

  #open(handle: Handle, request: FrameRequest, bytes: Buffer, offset: number): Buffer {
    const range = frameRange(handle.entry, request.frame);
    const at = range.offset - offset;
    const span = { lba: request.lba, blocks: range.blocks };
    return openFrame(handle.seal, request.frame, span, bytes.subarray(at, at + range.length));
  }

  async #handle(segment: number): Promise<Handle> {
    const known = this.#handles.get(segment);
    if (known !== undefined) return known;
    const entry = await this.#lookUp(segment);
    if (entry === undefined) {
      throw new PosternError('ERR_VOLUME_MISSING', `segment ${segment} is not in the segment table`);
    }
    const keys = await this.#ring.open(entry.generation);
    const seal = segmentSeal(keys, this.#ring.volume.volumeId, entry.id, entry.siv);
    const handle = { entry, seal };
    this.#handles.set(segment, handle);
    const oldest = this.#handles.keys().next();
    if (this.#handles.size > HANDLES_MAX && !oldest.done) this.#handles.delete(oldest.value);
    return handle;
  }
}

function frameKey(request: FrameRequest): number {
  return request.segment * FRAME_NUMBERS + request.frame;
}
