import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Crashes } from './crashes.ts';
import { VolumeWorld } from './world.ts';

const ROUNDS = process.env['SLOW'] === '1' ? 250 : 16;
const BATCH = 50;
const SEED = Number(process.env['SEED'] ?? randomInt(2 ** 31));

describe(`guest and parent with a directory, killed in ${ROUNDS} rounds (SEED=${SEED})`, () => {
  let world: VolumeWorld;
  let crashes: Crashes;
  before(async () => {
    world = await VolumeWorld.make();
    crashes = await Crashes.begin(world, SEED);
  });
  after(() => world?.remove());

  // Each has a deadline of its own.
  for (let from = 1; from <= ROUNDS; from += BATCH) {
    const to = Math.min(ROUNDS, from + BATCH - 1);
    test(`rounds ${from} to ${to}: every acknowledged flush is found, nothing that was never written`, async () => {
      for (let round = from; round <= to; round += 1) await crashes.round(`SEED=${SEED} round ${round}`);
    });
  }

  test('in the end every byte verifies', async (t) => {
    await crashes.end();
    t.diagnostic(JSON.stringify(crashes.counts));
    assert.ok(crashes.counts.flushes > 0);
  });
});
