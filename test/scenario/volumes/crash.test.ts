import assert from 'node:assert/strict';
import { createHash, randomInt } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PartyProcess } from '../../../shared/demo/party.ts';
import { seededRandom } from '../../../shared/objects/random.ts';
import { DiskClient } from './client.ts';
import { VolumeWorld } from './world.ts';

const ROUNDS = process.env['SLOW'] === '1' ? 200 : 4;
const SEED = Number(process.env['SEED'] ?? randomInt(2 ** 31));
const BLOCK_BYTES = 4096;
const BLOCKS = 256;
/** A flush comes after so many writes at most. */
const WRITES_PER_FLUSH_MAX = 24;
/** When in a round the kill comes, at the latest; what runs by then is the machine's business, not the test's. */
const KILL_WITHIN_MS = 400;

/** What may be in each block: the last version that is known to be safe, and those that were written after it. */
class Model {
  #version = 0;
  readonly #possible = Array.from({ length: BLOCKS }, () => [0]);

  begin(block: number): Buffer {
    this.#version += 1;
    this.#possible[block]?.push(this.#version);
    return contentOf(block, this.#version);
  }

  /** What a flush that begins now makes safe, once it is acknowledged. */
  get newest(): readonly number[] {
    return this.#possible.map((versions) => versions.at(-1) ?? 0);
  }

  acknowledge(newest: readonly number[]): void {
    for (const [block, version] of newest.entries()) {
      this.#possible[block] = (this.#possible[block] ?? []).filter((other) => other >= version);
    }
  }

  /** A state that was attached stays: what it does not show is gone for good, and must never come back. */
  check(block: number, found: Buffer): void {
    const possible = this.#possible[block] ?? [];
    const version = possible.find((other) => found.equals(contentOf(block, other)));
    assert.notEqual(version, undefined, `block ${block} holds none of the versions ${possible.join(', ')}`);
    this.#possible[block] = [version ?? 0];
  }
}

function contentOf(block: number, version: number): Buffer {
  if (version === 0) return Buffer.alloc(BLOCK_BYTES);
  return Buffer.alloc(BLOCK_BYTES, createHash('sha256').update(`${block} ${version}`).digest());
}

describe(`a writer whose guest and parent are killed, ${ROUNDS} rounds from seed ${SEED}`, () => {
  const random = seededRandom(SEED);
  const below = (end: number): number => Math.floor(random() * end);
  const model = new Model();
  let world: VolumeWorld;
  let parent: PartyProcess;
  let guest: PartyProcess;
  let flushes = 0;

  before(async () => {
    world = await VolumeWorld.make();
    parent = await world.startParent();
    const { code, stderr } = await world.volume('create', 'data', '--size', `${BLOCKS * BLOCK_BYTES}`);
    assert.equal(code, 0, stderr);
    await world.configure({ takeover: true });
    guest = await world.startGuest();
  });
  after(() => world.remove());

  async function writeUntilGone(): Promise<void> {
    const disk = await DiskClient.connect(world.nbdSocket);
    try {
      for (;;) {
        for (let count = 1 + below(WRITES_PER_FLUSH_MAX); count > 0; count -= 1) {
          const block = below(BLOCKS);
          await disk.write(block * BLOCK_BYTES, model.begin(block));
        }
        const { newest } = model;
        await disk.flush();
        model.acknowledge(newest);
        flushes += 1;
      }
    } catch {
      // The connection is gone, as every round means it to be.
    } finally {
      disk.close();
    }
  }

  async function compare(): Promise<void> {
    const disk = await DiskClient.connect(world.nbdSocket);
    for (let block = 0; block < BLOCKS; block += 1) {
      model.check(block, await disk.read(block * BLOCK_BYTES, BLOCK_BYTES));
    }
    disk.close();
  }

  for (let round = 1; round <= ROUNDS; round += 1) {
    test(`round ${round}`, async () => {
      const writing = writeUntilGone();
      await sleep(below(KILL_WITHIN_MS));
      const victim = (['guest', 'parent', 'both'] as const)[below(3)] ?? 'guest';
      if (victim !== 'guest') {
        await parent.kill();
        await sleep(below(KILL_WITHIN_MS / 4));
        if (victim === 'parent') {
          // The guest lives on and waits for its parent; then it goes as well.
          parent = await world.startParent();
          await sleep(below(KILL_WITHIN_MS));
        }
      }
      await guest.kill();
      await writing;
      if (victim === 'both') parent = await world.startParent();
      guest = await world.startGuest();
      await compare();
    });
  }

  test('afterwards the volume is whole, and acknowledged something', async () => {
    await guest.stop();
    const { code, stdout, stderr } = await world.volume('check', 'data', '--json');
    assert.equal(code, 0, stdout + stderr);
    assert.ok(flushes > 0);
  });
});
