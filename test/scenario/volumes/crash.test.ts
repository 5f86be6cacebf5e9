import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Crashes } from './crashes.ts';
import { VolumeWorld } from './world.ts';

const ROUNDS = process.env['SLOW'] === '1' ? 250 : 16;
const SEED = Number(process.env['SEED'] ?? randomInt(2 ** 31));

describe(`guest and parent with a directory, killed in ${ROUNDS} rounds (SEED=${SEED})`, () => {
  let world: VolumeWorld;
  before(async () => {
    world = await VolumeWorld.make();
  });
  after(() => world.remove());

  test('every flush that was acknowledged is found again, and nothing that was never written', async (t) => {
    const crashes = await Crashes.begin(world, SEED);
    for (let round = 1; round <= ROUNDS; round += 1) await crashes.round(`SEED=${SEED} round ${round}`);
    await crashes.end();
    t.diagnostic(JSON.stringify(crashes.counts));
    assert.ok(crashes.counts.flushes > 0);
  });
});
