import { PosternError } from '../../shared/errors.ts';
import { recycleBody } from '../../shared/objects/bodies.ts';
import { FieldReader } from './fields.ts';
import { Frame } from './frame.ts';
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

/** Opened segments that are remembered with their keys, 2 KiB each: 16 GiB of full ones. */
const HANDLES_MAX = 2048;
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
  readonly cache: ByteCache<number, Frame>;
  readonly #objects: VolumeObjects;
  readonly #ring: KeyRing;
  readonly #limits: VolumeLimits;
  readonly #lookUp: (segment: number) => Promise<SegmentEntry | undefined>;
  readonly #requests: Semaphore;
  readonly #handles = new Map<number, Handle>();
  readonly #underWay = new Map<number, Frame>();

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
    this.cache = new ByteCache(limits.readCacheBytes, (frame) => frame.setCached(false));
    this.#requests = new Semaphore(limits.readRequests);
  }

  /**
   * Does `work` with the plaintexts, in the order asked for, which are valid until what it returns has settled. `keep: false`
   * for what nobody will ask for again: it takes no other's place in the cache.
   * @throws ERR_VOLUME_CORRUPT, ERR_VOLUME_MISSING (also for a segment that was freed meanwhile), ERR_VOLUME_UNAVAILABLE
   */
  async use<T>(
    requests: readonly FrameRequest[],
    work: (frames: readonly Buffer[]) => T | Promise<T>,
    { keep = true } = {},
  ): Promise<T> {
    const held = new Map<number, Frame>();
    try {
      const wanted = new Map<number, FrameRequest>();
      for (const request of requests) {
        if (!this.#hold(request, held)) wanted.set(frameKey(request), request);
      }
      if (wanted.size > 0) await this.#fetch([...wanted.values()], held, keep);
      const frames = requests.map((request) => {
        const frame = held.get(frameKey(request));
        if (frame === undefined) throw new RangeError('a frame that nobody fetched');
        return frame;
      });
      await Promise.all(frames.map((frame) => frame.opened));
      return await work(frames.map((frame) => frame.bytes));
    } finally {
      for (const frame of held.values()) frame.release();
    }
  }

  #isKnown(request: FrameRequest): boolean {
    const key = frameKey(request);
    return this.cache.has(key) || this.#underWay.has(key);
  }

  /** Holds the frame if it is there or under way. */
  #hold(request: FrameRequest, held: Map<number, Frame>): boolean {
    const key = frameKey(request);
    if (held.has(key)) return true;
    const frame = this.cache.get(key) ?? this.#underWay.get(key);
    if (frame === undefined) return false;
    held.set(key, frame.take());
    return true;
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

  isCached(segment: number, frame: number): boolean {
    return this.cache.has(numberOf(segment, frame));
  }

  /** Puts a frame into the cache that nobody has to fetch; its memory is the cache's from now on. */
  insert(request: FrameRequest, bytes: Buffer): void {
    const frame = new Frame(bytes);
    this.#keep(frameKey(request), frame);
    frame.release();
  }

  #keep(key: number, frame: Frame): void {
    frame.setCached(true);
    this.cache.set(key, frame);
  }

  /** Forgets a segment that was freed. */
  forget(segment: number): void {
    this.#handles.delete(segment);
  }

  /** Starts the GETs; resolves when each wanted frame is held. */
  async #fetch(wanted: readonly FrameRequest[], held: Map<number, Frame>, keep: boolean): Promise<void> {
    const handles = new Map<number, Handle>();
    for (const { segment } of wanted) {
      if (!handles.has(segment)) handles.set(segment, await this.#handle(segment));
    }
    // Somebody else may have begun the same frames while this call looked up segments; the rest is missed once already.
    const fresh = wanted.filter((request) => !(this.#isKnown(request) && this.#hold(request, held)));
    const sorted = fresh.sort((a, b) => a.segment - b.segment || a.frame - b.frame);
    for (let at = 0; at < sorted.length; ) {
      const first = sorted[at];
      const handle = first && handles.get(first.segment);
      if (first === undefined || handle === undefined)
        throw new RangeError('a segment that was not looked up');
      const run = this.#neighbours(handle, sorted, at);
      at += run.length;
      this.#start(handle, first, run, held, keep);
    }
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
    first: FrameRequest,
    run: readonly FrameRequest[],
    held: Map<number, Frame>,
    keep: boolean,
  ): void {
    const offset = frameRange(handle.entry, first.frame).offset;
    const end = frameRange(handle.entry, run.at(-1)?.frame ?? first.frame);
    const range = { offset, length: end.offset + end.length - offset };
    const sealed = this.#requests.run(() => this.#objects.need(segmentObjectName(handle.entry), range));
    let left = run.length;
    for (const request of run) {
      const key = frameKey(request);
      const opening = sealed.then((bytes) => {
        const plain = this.#open(handle, request, bytes, offset);
        left -= 1;
        if (left === 0) recycleBody(bytes);
        return plain;
      });
      const frame = Frame.fetched(opening, (fetched) => {
        this.#underWay.delete(key);
        if (keep) this.#keep(key, fetched);
      });
      frame.opened.catch(() => this.#underWay.delete(key));
      held.set(key, frame);
      this.#underWay.set(key, frame);
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

function frameKey({ segment, frame }: FrameRequest): number {
  return numberOf(segment, frame);
}

function numberOf(segment: number, frame: number): number {
  return segment * FRAME_NUMBERS + frame;
}
