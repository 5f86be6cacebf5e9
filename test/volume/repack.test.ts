import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attachVolume } from '../../guest/volume/attach.ts';
import { createVolume } from '../../guest/volume/create.ts';
import type { Volume } from '../../guest/volume/engine.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { wrapStore } from '../../shared/objects/around.ts';
import { World } from './world.ts';

const NO = { fua: false };
const SEGMENTS = 8;
const HOLE = 1000 * BLOCK_BYTES;

/** How long it takes to empty sparse segments where each GET takes 10 ms, on the world's clock. */
async function repackMs(beside: (volume: Volume, world: World) => Promise<void>): Promise<number> {
  const world = new World(12);
  let isSlow = false;
  world.store = wrapStore(world.store, async ({ operation, signal }, run) => {
    if (isSlow && operation === 'get') await world.clock.sleep(10);
    return run(signal);
  });
  return world.run(async () => {
    await createVolume(world.creation(2 * HOLE));
    const volume = await attachVolume(world.access());
    const { checkpointer, repacker } = volume.parts;
    const blocks = Array.from({ length: 16 * SEGMENTS }, (_, count) => 2 * count * BLOCK_BYTES);
    for (const at of blocks) await volume.write(at, Buffer.alloc(BLOCK_BYTES, 1), NO);
    await volume.flush();
    await repacker.pause();
    for (const at of blocks.filter((_, index) => index % 16 >= 6))
      await volume.write(at, Buffer.alloc(BLOCK_BYTES, 2), NO);
    await volume.flush();
    await checkpointer.request({ sweep: true });
    assert.ok(checkpointer.candidates.size >= SEGMENTS);
    isSlow = true;
    const startMs = world.clock.nowMs();
    repacker.resume();
    const repacked = repacker.run();
    await beside(volume, world);
    await repacked;
    const tookMs = world.clock.nowMs() - startMs;
    assert.equal(repacker.repackedBlocks, 6 * SEGMENTS);
    await volume.detach();
    return tookMs;
  });
}

test('repacking rests twice as long as it works while somebody uses the volume, and not otherwise', async () => {
  const aloneMs = await repackMs(async () => {});
  const besideMs = await repackMs(async (volume, { clock }) => {
    while (volume.parts.checkpointer.candidates.size > 0) {
      await volume.read(HOLE, BLOCK_BYTES);
      await clock.sleep(5);
    }
  });
  assert.ok(aloneMs >= 10 * SEGMENTS, `${aloneMs} ms alone`);
  assert.ok(
    besideMs >= aloneMs + 2 * 10 * SEGMENTS - 20,
    `${besideMs} ms beside a reader, ${aloneMs} ms alone`,
  );
});

test('what is sparse of a small commit waits for the next look at all segments', async () => {
  const world = new World(13);
  await world.run(async () => {
    await createVolume(world.creation(2 * HOLE));
    const volume = await attachVolume(world.access());
    const { checkpointer, repacker } = volume.parts;
    await repacker.pause();
    const blocks = Array.from({ length: 8 }, (_, count) => 2 * count * BLOCK_BYTES);
    for (const some of [blocks, blocks.slice(3)]) {
      for (const at of some) await volume.write(at, Buffer.alloc(BLOCK_BYTES, some.length), NO);
      await volume.flush();
    }
    await checkpointer.request();
    assert.equal(checkpointer.candidates.size, 0);
    await checkpointer.request({ sweep: true });
    assert.ok(checkpointer.candidates.size > 0);
    await volume.detach();
  });
});
