import assert from 'node:assert/strict';
import { attachVolume } from '../../../guest/volume/attach.ts';
import { checkVolume } from '../../../guest/volume/check.ts';
import { createVolume, type VolumeAccess } from '../../../guest/volume/create.ts';
import type { Volume } from '../../../guest/volume/engine.ts';
import type { FlushMode } from '../../../guest/volume/header.ts';
import { inspectVolume } from '../../../guest/volume/inspect.ts';
import { BLOCK_BYTES, type VolumeLimits } from '../../../guest/volume/limits.ts';
import { isPosternError } from '../../../shared/errors.ts';
import { checkedStore } from '../../../shared/objects/checked.ts';
import { VirtualClock } from '../../../shared/objects/clock.ts';
import { type FaultRates, FaultyStore } from '../../../shared/objects/fault.ts';
import { createMemoryStore, MemoryObjects } from '../../../shared/objects/memory.ts';
import { type Random, seededRandom } from '../../../shared/objects/random.ts';
import { AnchorHeads, FaultyAnchor, MemoryAnchor } from '../memory-anchor.ts';
import { readNaively } from '../naive/reader.ts';
import { ROOT_KEY, SMALL_LIMITS, virtualEnvironment } from '../world.ts';
import { Maintenance } from './maintenance.ts';
import { BlockModel, describe } from './model.ts';
import { SimulatedProcess } from './process.ts';

/** The driver's blocks lie in stretches under different pages of the index, the last at the volume's end. */
const STRETCH_BLOCKS = 40;
const VOLUME_BYTES = 2 ** 41 + 512;
const LAST_BLOCK = Math.floor(VOLUME_BYTES / BLOCK_BYTES);
const STRETCHES = [0, 490, 512 * 512 * 7 + 3, LAST_BLOCK - STRETCH_BLOCKS];

const ZEROS = Buffer.alloc(BLOCK_BYTES);

export interface SimulationOptions {
  readonly seed: number;
  readonly rounds: number;
  readonly mode?: FlushMode;
  readonly limits?: VolumeLimits;
  /** Ends the first process after its attach at that moment, and no other at random: for walks over every step. */
  readonly endsAt?: number;
  readonly faults?: FaultRates;
  readonly anchorFaults?: number;
}

export interface SimulationResult {
  attaches: number;
  crashes: number;
  detaches: number;
  takeovers: number;
  failures: number;
  flushes: number;
  checkpoints: number;
  deletedObjects: number;
  repackedSegments: number;
  snapshots: number;
  restores: number;
  collections: number;
  rekeys: number;
  /** How often the naive reader read the whole volume. */
  naiveReads: number;
  /** Moments of the first process, from its attach on. */
  moments: number;
}

/** Some seeds have a calm world, some a wild one. */
function ratesFrom(random: Random): FaultRates {
  const level = [0, 0.01, 0.04, 0.12][Math.floor(random() * 4)] ?? 0;
  return {
    'put-conflict': level,
    'put-applied-exists': level,
    'put-applied-error': level,
    'put-error': level,
    'put-late': level,
    'get-cut': level,
    'get-short': level / 2,
    'list-stale': 4 * level,
    'delete-lost': level,
    'slow-down': level,
    delay: level,
  };
}

/**
 * A volume's life from one seed: processes attach, write, flush, crash at any moment or are overtaken while they live,
 * over a store and an anchor that fail. After each attach every block is compared with what it may hold.
 */
export class Simulation {
  readonly #options: SimulationOptions;
  readonly #random: Random;
  readonly #clock = new VirtualClock();
  readonly #objects = new MemoryObjects();
  readonly #store: FaultyStore;
  readonly #anchor: FaultyAnchor;
  readonly #model = new BlockModel();
  readonly #heads = new AnchorHeads();
  readonly #maintenance: Maintenance;
  readonly #busy = new Set<number>();
  #writeCount = 0;
  #context = '';
  readonly result: SimulationResult = {
    attaches: 0,
    crashes: 0,
    detaches: 0,
    takeovers: 0,
    failures: 0,
    flushes: 0,
    checkpoints: 0,
    deletedObjects: 0,
    repackedSegments: 0,
    snapshots: 0,
    restores: 0,
    collections: 0,
    rekeys: 0,
    naiveReads: 0,
    moments: 0,
  };

  constructor(options: SimulationOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
    const rates = options.faults ?? ratesFrom(this.#random);
    const inner = createMemoryStore(this.#objects);
    this.#store = new FaultyStore(inner, {
      seed: options.seed + 1,
      rates,
      clock: this.#clock,
      maxDelayMs: 3000,
    });
    this.#maintenance = new Maintenance(this.#model, this.#random);
    const anchorRate = options.anchorFaults ?? (rates['put-error'] ?? 0) * 2;
    this.#anchor = new FaultyAnchor(new MemoryAnchor(this.#heads), this.#clock, this.#random, anchorRate);
  }

  get objects(): MemoryObjects {
    return this.#objects;
  }

  async run(): Promise<SimulationResult> {
    await this.#clock.run(this.#live());
    return Object.assign(this.result, this.#maintenance.counts);
  }

  async #live(): Promise<void> {
    const { seed, rounds, mode = { kind: 'strict' } } = this.#options;
    this.#store.setFaults(false);
    const access = this.#access(this.#newProcess(Number.POSITIVE_INFINITY));
    await createVolume({ ...access, sizeBytes: VOLUME_BYTES, mode });
    let needsTakeover = false;
    for (let round = 0; round < rounds; round += 1) {
      this.#context = `seed ${seed}, round ${round}`;
      needsTakeover = await this.#round(round, needsTakeover);
    }
    this.#context = `seed ${seed}, at the end`;
    this.#store.setFaults(false);
    const process = this.#newProcess(Number.POSITIVE_INFINITY);
    const volume = await this.#attach(process, needsTakeover);
    assert.ok(volume);
    this.#readNaively();
    await volume.detach();
    await this.#check(process);
  }

  /** The second reader, written from the document, finds the same bytes. */
  #readNaively(): void {
    this.result.naiveReads += 1;
    const head = [...this.#heads.heads.values()][0];
    assert.ok(head);
    const fetch = (name: string): Buffer | undefined => this.#objects.peek(`vol/${name}`);
    const naive = readNaively(fetch, Buffer.alloc(32, 7), head, SMALL_LIMITS.pipelineCommits);
    assert.equal(naive.sizeBytes, VOLUME_BYTES);
    this.#compareImages(this.#model.image(), naive.blocks, 'the naive reader');
    for (const [name, blocks] of naive.snapshots) {
      this.#compareImages(
        this.#maintenance.images.get(name) ?? new Map(),
        blocks,
        `the naive reader, ${name}`,
      );
    }
  }

  #compareImages(
    expected: ReadonlyMap<number, Buffer>,
    found: ReadonlyMap<number, Buffer>,
    who: string,
  ): void {
    const hole = Buffer.alloc(BLOCK_BYTES);
    for (const block of new Set([...expected.keys(), ...found.keys()])) {
      const [left, right] = [expected.get(block) ?? hole, found.get(block) ?? hole];
      const text = `${this.#context}, ${who}: block ${block} is ${describe(right)}, should be ${describe(left)}`;
      assert.ok(left.equals(right), text);
    }
  }

  /** `check` verifies the volume at rest and finds nothing wrong. */
  async #check(process: SimulatedProcess): Promise<void> {
    const report = await checkVolume(await inspectVolume(this.#access(process)));
    assert.deepEqual(report.problems, [], `${this.#context}, check`);
  }

  #newProcess(endsAt: number): SimulatedProcess {
    const options = { endsAt, latencyMs: 20 };
    return new SimulatedProcess(checkedStore(this.#store), this.#anchor, this.#clock, this.#random, options);
  }

  #access(process: SimulatedProcess): VolumeAccess {
    return {
      store: process.store,
      prefix: 'vol',
      name: 'data',
      keyProvider: ROOT_KEY,
      anchor: process.anchor,
      environment: virtualEnvironment(this.#clock, this.#random),
      limits: this.#options.limits ?? SMALL_LIMITS,
    };
  }

  /** Returns whether the next attach is a takeover. */
  async #round(round: number, needsTakeover: boolean): Promise<boolean> {
    this.#busy.clear();
    this.#store.setFaults(this.#random() < 0.8);
    const process = this.#newProcess(this.#endOf(round));
    const volume = await this.#attach(process, needsTakeover);
    if (volume === undefined) return true;
    if (round === 0) this.result.moments = process.moments;
    this.#outages();
    const work = this.#work(volume, process);
    await Promise.race([work, process.ended]);
    if (round === 0) this.result.moments = process.moments;
    return this.#part(volume, process, work);
  }

  #endOf(round: number): number {
    const { endsAt } = this.#options;
    if (endsAt !== undefined) return round === 0 ? endsAt : Number.POSITIVE_INFINITY;
    return this.#random() < 0.6 ? Math.floor(this.#random() ** 2 * 600) + 1 : Number.POSITIVE_INFINITY;
  }

  /** Now and then the store or the anchor is away: for seconds, which the engine bridges, or for hours. */
  #outages(): void {
    if (this.#options.endsAt !== undefined) return;
    const chance = this.#random();
    if (chance < 0.1) this.#store.setUnreachable(this.#random() * 60_000);
    else if (chance < 0.13) this.#store.setUnreachable(this.#random() * 3 * 3_600_000);
    else if (chance < 0.2) this.#anchor.unreachableUntilMs = this.#clock.nowMs() + this.#random() * 60_000;
    else if (chance < 0.23)
      this.#anchor.unreachableUntilMs = this.#clock.nowMs() + this.#random() * 7_200_000;
  }

  /** How a process parts from its volume: in order, killed, or left behind alive. */
  async #part(volume: Volume, process: SimulatedProcess, work: Promise<void>): Promise<boolean> {
    const count = (): void => {
      this.result.checkpoints += volume.parts.checkpointer.checkpointCount;
      this.result.deletedObjects += volume.parts.reaper.deletedCount;
      this.result.repackedSegments += volume.parts.repacker.repackedSegments;
    };
    if (process.isEnded) {
      this.result.crashes += 1;
      count();
      volume.close();
      return true;
    }
    await work;
    count();
    const chance = this.#random();
    if (chance < 0.3) return this.#detach(volume, process);
    // In mode lazy an overtaken instance may lose what it acknowledged and had not anchored: that is the mode's window.
    const isStrict = (this.#options.mode ?? { kind: 'strict' }).kind === 'strict';
    if (chance < 0.5 && isStrict) return this.#overtake(volume, process);
    this.result.crashes += 1;
    process.kill();
    volume.close();
    return true;
  }

  async #detach(volume: Volume, process: SimulatedProcess): Promise<boolean> {
    const mark = this.#model.mark();
    try {
      await Promise.race([volume.detach(), process.ended.then(() => Promise.reject(new Ended()))]);
      this.#model.flushed(mark);
      this.result.detaches += 1;
      return false;
    } catch (error) {
      this.#expect(error);
      process.kill();
      volume.close();
      return true;
    }
  }

  /** Another process attaches while this one lives on: from then on nothing of the old one may be acknowledged. */
  async #overtake(old: Volume, process: SimulatedProcess): Promise<boolean> {
    process.spare();
    let isOver = false;
    const busy = (async () => {
      while (!isOver && old.parts.health.state === 'serving')
        await this.#write(old, process).then(() => this.#flush(old));
    })();
    const next = this.#newProcess(Number.POSITIVE_INFINITY);
    const volume = await this.#attach(next, true, () => {
      // Checked by reads alone from here on: the old one's writes are no longer the volume's.
      isOver = true;
      return busy;
    });
    isOver = true;
    await Promise.race([busy, this.#clock.sleep(60_000)]);
    if (volume !== undefined) {
      await old
        .write(STRETCHES[0] ?? 0, Buffer.alloc(BLOCK_BYTES, 'zombie'), { fua: false })
        .catch(this.#expect);
      const late = await old.flush().then(
        () => 'acknowledged',
        (error: unknown) => {
          this.#expect(error);
          return 'refused';
        },
      );
      assert.equal(late, 'refused', `${this.#context}: a fenced instance acknowledged a flush`);
      assert.notEqual(old.parts.health.state, 'serving');
      this.result.takeovers += 1;
      await this.#checkAll(volume);
      next.kill();
      volume.close();
    }
    process.kill();
    old.close();
    return true;
  }

  /** Attaches and compares every block. Undefined: the process ended, or the world was away for too long. */
  async #attach(
    process: SimulatedProcess,
    takeover: boolean,
    settle?: () => Promise<void>,
  ): Promise<Volume | undefined> {
    const options = { ...this.#access(process), takeover };
    for (let attempt = 0; attempt < 60; attempt += 1) {
      const attached = attachVolume(options).then(
        (volume) => ({ volume }),
        (error: unknown) => ({ error }),
      );
      const result = await Promise.race([attached, process.ended]);
      if (process.isEnded || result === undefined) {
        this.result.crashes += 1;
        return undefined;
      }
      if ('volume' in result) {
        await settle?.();
        this.result.attaches += 1;
        const checked = this.#checkAttached(result.volume);
        await Promise.race([checked, process.ended]);
        if (!process.isEnded && settle === undefined && this.#random() < 0.15) this.#readNaively();
        if (!process.isEnded) await checked;
        return process.isEnded ? undefined : result.volume;
      }
      this.#expectAttach(result.error);
      this.result.failures += 1;
      options.takeover = true;
      await this.#clock.sleep(600_000);
      if (attempt > 40) this.#store.setFaults(false);
    }
    throw new Error(`${this.#context}: no attach worked`);
  }

  async #checkAttached(volume: Volume): Promise<void> {
    for (const start of STRETCHES) {
      const blocks = await this.#readStretch(volume, start);
      if (blocks === undefined) throw new Error(`${this.#context}: an attached volume cannot be read`);
      for (const [index, bytes] of blocks.entries()) {
        this.#model.checkAttached(start + index, bytes, `${this.#context}, after attach`);
      }
    }
  }

  async #checkAll(volume: Volume): Promise<void> {
    for (const start of STRETCHES) {
      const blocks = (await this.#readStretch(volume, start)) ?? [];
      for (const [index, bytes] of blocks.entries()) {
        const block = start + index;
        this.#model.checkRead(block, bytes, this.#model.newest(block), this.#context);
      }
    }
  }

  async #readStretch(volume: Volume, start: number): Promise<Buffer[] | undefined> {
    for (let attempt = 0; attempt < 200; attempt += 1) {
      try {
        const bytes = await volume.read(start * BLOCK_BYTES, STRETCH_BLOCKS * BLOCK_BYTES);
        return Array.from({ length: STRETCH_BLOCKS }, (_, at) =>
          Buffer.from(bytes.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES)),
        );
      } catch (error) {
        // A read gives up after its deadline; the data must be there once the store is back.
        const codes = ['ERR_VOLUME_UNAVAILABLE', 'ERR_STORE_CORRUPT'];
        if (!codes.some((code) => isPosternError(error) && error.code === code)) throw error;
        await this.#clock.sleep(120_000);
      }
    }
    return undefined;
  }

  /** Some operations, several at a time. */
  async #work(volume: Volume, process: SimulatedProcess): Promise<void> {
    const count = 10 + Math.floor(this.#random() * 60);
    const running = new Set<Promise<void>>();
    for (let index = 0; index < count && !process.isEnded; index += 1) {
      const done = this.#operation(volume, process).finally(() => running.delete(done));
      running.add(done);
      if (running.size >= 4) await Promise.race(running);
      if (volume.parts.health.state !== 'serving') break;
    }
    await Promise.all(running);
    if (this.#random() < 0.35 && volume.parts.health.state === 'serving') {
      await this.#maintenance.run(volume).catch(this.#expect);
    }
  }

  async #operation(volume: Volume, process: SimulatedProcess): Promise<void> {
    const chance = this.#random();
    if (chance < 0.45) return this.#write(volume, process);
    if (chance < 0.53) return this.#clear(volume, process);
    if (chance < 0.69) return this.#read(volume);
    if (chance < 0.73) return this.#lookForHoles(volume);
    if (chance < 0.93) return this.#flush(volume);
    return this.#clock.sleep(this.#random() * 8000);
  }

  /** A stretch of blocks that nobody writes at the moment. */
  #place(
    maxBlocks: number,
  ): { readonly offset: number; readonly length: number; readonly blocks: number[] } | undefined {
    const start = STRETCHES[Math.floor(this.#random() * STRETCHES.length)] ?? 0;
    const first = start + Math.floor(this.#random() * STRETCH_BLOCKS);
    const count = Math.min(1 + Math.floor(this.#random() ** 2 * maxBlocks), start + STRETCH_BLOCKS - first);
    const blocks = Array.from({ length: count }, (_, index) => first + index);
    if (blocks.some((block) => this.#busy.has(block))) return undefined;
    if (this.#random() < 0.6) return { offset: first * BLOCK_BYTES, length: count * BLOCK_BYTES, blocks };
    const cut = Math.floor(this.#random() * BLOCK_BYTES);
    const length = Math.max(1, count * BLOCK_BYTES - cut - Math.floor(this.#random() * BLOCK_BYTES));
    const last = Math.floor((first * BLOCK_BYTES + cut + length - 1) / BLOCK_BYTES);
    return { offset: first * BLOCK_BYTES + cut, length, blocks: blocks.filter((block) => block <= last) };
  }

  async #write(volume: Volume, process: SimulatedProcess): Promise<void> {
    const place = this.#place(20);
    if (place === undefined) return this.#clock.sleep(1);
    this.#writeCount += 1;
    const data = Buffer.alloc(place.length, `write ${this.#writeCount} `);
    const fua = this.#random() < 0.1;
    const mark = this.#model.mark();
    const isDone = await this.#change(place, data, process, () =>
      volume.write(place.offset, Buffer.from(data), { fua }),
    );
    if (isDone && fua) this.#model.flushed(mark);
  }

  async #clear(volume: Volume, process: SimulatedProcess): Promise<void> {
    const place = this.#place(STRETCH_BLOCKS);
    if (place === undefined) return this.#clock.sleep(1);
    const { offset, length } = place;
    const noHole = this.#random() < 0.3;
    await this.#change(place, Buffer.alloc(length), process, () =>
      this.#random() < 0.5
        ? volume.trim(offset, length, { fua: false })
        : volume.writeZeroes(offset, length, { fua: false, noHole }),
    );
  }

  /** Tells the model of the change, does it, and tells the model that it is done. */
  async #change(
    place: { readonly offset: number; readonly blocks: readonly number[] },
    data: Buffer,
    process: SimulatedProcess,
    run: () => Promise<void>,
  ): Promise<boolean> {
    const settle: (() => void)[] = [];
    for (const block of place.blocks) {
      this.#busy.add(block);
      const bytes = Buffer.from(this.#model.newest(block));
      const at = block * BLOCK_BYTES - place.offset;
      const piece = data.subarray(Math.max(0, at), at + BLOCK_BYTES);
      bytes.set(piece, Math.max(0, -at));
      settle.push(this.#model.write(block, bytes));
    }
    const release = (): void => {
      for (const block of place.blocks) this.#busy.delete(block);
    };
    void process.ended.then(release);
    try {
      await run();
      for (const done of settle) done();
      release();
      return true;
    } catch (error) {
      this.#expect(error);
      // Whether it happened is open until the next attach; nobody writes these blocks before.
      return false;
    }
  }

  /** What is told as a hole is taken for zeros by whoever copies a volume. */
  async #lookForHoles(volume: Volume): Promise<void> {
    const start = STRETCHES[Math.floor(this.#random() * STRETCHES.length)] ?? 0;
    const since = Array.from({ length: STRETCH_BLOCKS }, (_, index) => this.#model.newest(start + index));
    const open = since.map((_, index) => this.#busy.has(start + index));
    try {
      const extents = await volume.blockStatus(start * BLOCK_BYTES, STRETCH_BLOCKS * BLOCK_BYTES);
      let at = 0;
      for (const { length, hole } of extents) {
        const end = at + length / BLOCK_BYTES;
        for (; at < end; at += 1) {
          if (!hole || open[at] === true) continue;
          this.#model.checkRead(start + at, ZEROS, since[at] ?? ZEROS, `${this.#context}, block status`);
        }
      }
    } catch (error) {
      this.#expect(error);
    }
  }

  async #read(volume: Volume): Promise<void> {
    const start = STRETCHES[Math.floor(this.#random() * STRETCHES.length)] ?? 0;
    const first = start + Math.floor(this.#random() * STRETCH_BLOCKS);
    const count = Math.min(1 + Math.floor(this.#random() * 12), start + STRETCH_BLOCKS - first);
    const since = Array.from({ length: count }, (_, index) => this.#model.newest(first + index));
    const open = since.map((_, index) => this.#busy.has(first + index));
    try {
      const bytes = await volume.read(first * BLOCK_BYTES, count * BLOCK_BYTES);
      for (const [index, before] of since.entries()) {
        // A write that was under way when the read began may have been seen or not.
        if (open[index]) continue;
        const found = bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
        this.#model.checkRead(first + index, found, before, `${this.#context}, running`);
      }
    } catch (error) {
      this.#expect(error);
    }
  }

  async #flush(volume: Volume): Promise<void> {
    const mark = this.#model.mark();
    try {
      await volume.flush();
      this.#model.flushed(mark);
      this.result.flushes += 1;
    } catch (error) {
      this.#expect(error);
    }
  }

  /** What may go wrong while a volume is used: never data that does not verify. */
  readonly #expect = (error: unknown): void => {
    const codes = [
      'ERR_VOLUME_POISONED',
      'ERR_VOLUME_FENCED',
      'ERR_VOLUME_UNAVAILABLE',
      'ERR_VOLUME_CLOSED',
      'ERR_STORE_CORRUPT',
    ];
    if (error instanceof Ended || (isPosternError(error) && codes.includes(error.code))) return;
    throw new Error(`${this.#context}: ${String(error)}`, { cause: error });
  };

  #expectAttach(error: unknown): void {
    const codes = [
      'ERR_VOLUME_UNAVAILABLE',
      'ERR_VOLUME_FENCED',
      'ERR_VOLUME_POISONED',
      'ERR_ANCHOR_UNAVAILABLE',
    ];
    if (isPosternError(error) && (codes.includes(error.code) || error.code === 'ERR_STORE_CORRUPT')) return;
    throw new Error(`${this.#context}: an attach failed: ${String(error)}`, { cause: error });
  }
}

class Ended extends Error {}
