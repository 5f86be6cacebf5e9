import { randomInt } from 'node:crypto';
import { after, before, describe } from 'node:test';
import { testRounds } from './crash-rounds.ts';
import { Crashes } from './crashes.ts';
import { VolumeWorld } from './world.ts';

const ROUNDS = process.env['SLOW'] === '1' ? 250 : 16;
const SEED = Number(process.env['SEED'] ?? randomInt(2 ** 31));

describe(`guest and parent with a directory, killed in ${ROUNDS} rounds (SEED=${SEED})`, () => {
  let world: VolumeWorld;
  let crashes: Crashes;
  before(async () => {
    world = await VolumeWorld.make();
    crashes = await Crashes.begin(world, SEED);
  });
  after(() => world?.remove());

  testRounds(() => crashes, ROUNDS, SEED);
});
