import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PartyProcess } from '../../../shared/demo/party.ts';
import { type Random, seededRandom } from '../../../shared/objects/random.ts';
import { DiskClient } from './client.ts';
import { BLOCK_BYTES, CrashModel } from './crash-model.ts';
import { CrashWriter } from './crash-writer.ts';
import { attached, type VolumeWorld } from './world.ts';

const BLOCKS = 256;
const WRITERS = 2;
/** When in a round the first kill comes, at the latest; what runs by then is the machine's business, not the test's. */
const KILL_WITHIN_MS = 400;
/** Between two kills, and between two starts. */
const PAUSE_MS = 100;
/** From the start of a guest to its death on the way: mostly while it attaches, sometimes right before or after. */
const ATTACH_WITHIN_MS = 1200;

/** The server behind the parent, where it is a process of its own. */
export interface StoreProcess {
  kill(): Promise<void>;
  start(): Promise<void>;
}

type Victim = 'guest' | 'parent' | 'store';

export interface CrashCounts {
  flushes: number;
  lostAttaches: number;
  readonly kills: Record<Victim, number>;
}

/**
 * A guest with a volume, its parent and its store, as real processes, any of which is killed at moments from a seed, alone
 * or with others, while writers write and flush, and while the guest attaches.
 */
export class Crashes {
  readonly counts: CrashCounts = { flushes: 0, lostAttaches: 0, kills: { guest: 0, parent: 0, store: 0 } };
  readonly #world: VolumeWorld;
  readonly #store: StoreProcess | undefined;
  readonly #random: Random;
  readonly #model = new CrashModel(BLOCKS);
  #parent: PartyProcess;
  #guest: PartyProcess;

  private constructor(
    world: VolumeWorld,
    store: StoreProcess | undefined,
    seed: number,
    parent: PartyProcess,
    guest: PartyProcess,
  ) {
    this.#world = world;
    this.#store = store;
    this.#random = seededRandom(seed);
    this.#parent = parent;
    this.#guest = guest;
  }

  static async begin(world: VolumeWorld, seed: number, store?: StoreProcess): Promise<Crashes> {
    const parent = await world.startParent();
    const { code, stderr } = await world.volume('create', 'data', '--size', `${BLOCKS * BLOCK_BYTES}`);
    assert.equal(code, 0, stderr);
    await world.configure({ takeover: true });
    return new Crashes(world, store, seed, parent, await world.startGuest());
  }

  async round(context: string): Promise<void> {
    const writers = this.#startWriters();
    await this.#pause(KILL_WITHIN_MS);
    const victims = this.#victims();
    for (const victim of victims) {
      await this.#kill(victim);
      await this.#pause(PAUSE_MS);
    }
    if (victims.includes('store')) await this.#store?.start();
    await this.#pause(PAUSE_MS);
    if (victims.includes('parent')) this.#parent = await this.#world.startParent();
    if (victims.includes('guest')) {
      await Promise.all(writers.map((writer) => writer.lost()));
      await this.#attachAgain();
    } else {
      // It lives on, bridges the gap, and every writer is answered once more.
      await Promise.all(writers.map((writer) => writer.stop()));
    }
    for (const { flushCount } of writers) this.counts.flushes += flushCount;
    await this.#compare(context);
  }

  /** Gives the volume up in order, and has every byte of it verified. */
  async end(): Promise<void> {
    await this.#guest.stop();
    const { code, stdout, stderr } = await this.#world.volume('check', 'data', '--json');
    assert.equal(code, 0, stdout + stderr);
    const report = JSON.parse(stdout) as { problemCount: number };
    assert.equal(report.problemCount, 0);
  }

  /** Each has blocks of its own, so that a flush of one says nothing of the other's writes. */
  #startWriters(): CrashWriter[] {
    return Array.from({ length: WRITERS }, (_, writer) => {
      const blocks = Array.from({ length: BLOCKS / WRITERS }, (_, index) => index * WRITERS + writer);
      return new CrashWriter(this.#world.nbdSocket, this.#model, blocks, this.#random);
    });
  }

  /** One or more, in the order in which they die. */
  #victims(): Victim[] {
    const all: Victim[] = this.#store === undefined ? ['guest', 'parent'] : ['guest', 'parent', 'store'];
    const first = all[this.#below(all.length)] ?? 'guest';
    return [first, ...all.filter((victim) => victim !== first && this.#random() < 0.3)];
  }

  async #kill(victim: Victim): Promise<void> {
    this.counts.kills[victim] += 1;
    if (victim === 'guest') await this.#guest.kill();
    else if (victim === 'parent') await this.#parent.kill();
    else await this.#store?.kill();
  }

  async #attachAgain(): Promise<void> {
    while (this.#random() < 0.25) {
      const lost = this.#world.spawnGuest();
      await this.#pause(ATTACH_WITHIN_MS);
      await lost.kill();
      this.counts.lostAttaches += 1;
    }
    this.#guest = this.#world.spawnGuest();
    if (this.#random() < 0.25) {
      await this.#pause(ATTACH_WITHIN_MS);
      await this.#kill('parent');
      await this.#pause(PAUSE_MS);
      this.#parent = await this.#world.startParent();
    }
    await attached(this.#guest);
  }

  async #compare(context: string): Promise<void> {
    const disk = await DiskClient.connect(this.#world.nbdSocket);
    for (let block = 0; block < BLOCKS; block += 1) {
      this.#model.check(block, await disk.read(block * BLOCK_BYTES, BLOCK_BYTES), context);
    }
    disk.close();
  }

  #below(end: number): number {
    return Math.floor(this.#random() * end);
  }

  #pause(belowMs: number): Promise<void> {
    return sleep(this.#below(belowMs));
  }
}
