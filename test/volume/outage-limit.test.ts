import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attachVolume } from '../../guest/volume/attach.ts';
import { createVolume } from '../../guest/volume/create.ts';
import type { Volume } from '../../guest/volume/engine.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { wrapStore } from '../../shared/objects/around.ts';
import { unavailable } from '../../shared/objects/failure.ts';
import { World } from './world.ts';

const SIZE = 16 * 1024 * 1024;
const OLD = Buffer.alloc(BLOCK_BYTES, 'old');
const NEW = Buffer.alloc(BLOCK_BYTES, 'new');

/** Attached, with one block in the store and in no cache; then the store goes away for so long. */
async function attachedBefore(awayMs: number, world: World): Promise<Volume> {
  const { store } = world;
  let endMs = 0;
  world.store = wrapStore(store, (call, run) => {
    if (world.clock.nowMs() < endMs) throw unavailable('away');
    return run(call.signal);
  });
  await createVolume(world.creation(SIZE));
  const first = await attachVolume(world.access());
  await first.write(0, OLD, { fua: true });
  await first.detach();
  const volume = await attachVolume(world.access());
  endMs = world.clock.nowMs() + awayMs;
  return volume;
}

test('a store that is away for less than the limit delays a cold read as it delays a flush, and fails neither', async () => {
  const world = new World();
  await world.run(async () => {
    const volume = await attachedBefore(0.9 * world.limits.outageTimeoutMs, world);
    const [found] = await Promise.all([
      volume.read(0, BLOCK_BYTES),
      volume.write(BLOCK_BYTES, NEW, { fua: true }),
    ]);
    assert.deepEqual(found, OLD);
    assert.equal(volume.parts.health.state, 'serving');
    assert.deepEqual(await volume.read(BLOCK_BYTES, BLOCK_BYTES), NEW);
    await volume.detach();
  });
});

test('a store that is away for longer fails both', async () => {
  const world = new World();
  await world.run(async () => {
    const volume = await attachedBefore(2 * world.limits.outageTimeoutMs, world);
    const results = await Promise.allSettled([
      volume.read(0, BLOCK_BYTES),
      volume.write(BLOCK_BYTES, NEW, { fua: true }),
    ]);
    const codes = results.map((result) => (result.status === 'rejected' ? result.reason.code : 'done'));
    assert.deepEqual(codes, ['ERR_VOLUME_UNAVAILABLE', 'ERR_VOLUME_POISONED']);
    assert.equal(volume.parts.health.state, 'poisoned');
    volume.close();
  });
});
