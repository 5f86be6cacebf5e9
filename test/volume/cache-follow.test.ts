import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attachVolume } from '../../guest/volume/attach.ts';
import { createVolume } from '../../guest/volume/create.ts';
import type { Volume } from '../../guest/volume/engine.ts';
import { collectGarbage } from '../../guest/volume/gc.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { World } from './world.ts';

const NO = { fua: false };
/** Apart, so that each block is a frame of its own. */
const BLOCKS = Array.from({ length: 16 }, (_, count) => 2 * count * BLOCK_BYTES);
const HOT = BLOCKS.slice(0, 6);
const COLD = BLOCKS.slice(6);

async function write(volume: Volume, offsets: readonly number[], byte: number): Promise<void> {
  for (const offset of offsets) await volume.write(offset, Buffer.alloc(BLOCK_BYTES, byte), NO);
  await volume.flush();
}

/** Requests of the store that reading them all takes. */
async function getsOf(volume: Volume, offsets: readonly number[], byte: number): Promise<number> {
  const { counts } = volume.parts.objects;
  const before = counts.gets;
  for (const offset of offsets) {
    assert.deepEqual(await volume.read(offset, BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES, byte));
  }
  return counts.gets - before;
}

/** A volume in which all blocks are 1, and the hot ones were read. */
async function withCached(body: (volume: Volume) => Promise<void>): Promise<void> {
  const world = new World(11);
  await world.run(async () => {
    await createVolume(world.creation(1024 * BLOCK_BYTES));
    const volume = await attachVolume(world.access());
    await write(volume, BLOCKS, 1);
    assert.ok((await getsOf(volume, HOT, 1)) > 0);
    assert.equal(volume.parts.frames.cache.usedBytes, HOT.length * BLOCK_BYTES);
    await body(volume);
    await volume.detach();
  });
}

test('what was cached and is written anew is read without the store', async () => {
  await withCached(async (volume) => {
    await write(volume, HOT, 2);
    assert.equal(await getsOf(volume, HOT, 2), 0);
  });
});

test('what was cached and is moved by repacking is read without the store', async () => {
  await withCached(async (volume) => {
    const before = await volume.parts.index.places(0, 2 * HOT.length);
    await write(volume, COLD, 2);
    await collectGarbage(volume, { dryRun: false });
    const after = await volume.parts.index.places(0, 2 * HOT.length);
    assert.ok(before.every((place, at) => place === 0 || place !== after[at]));
    assert.equal(await getsOf(volume, HOT, 1), 0);
  });
});

test('what was not cached takes nobody’s place when it is written', async () => {
  await withCached(async (volume) => {
    await write(volume, COLD, 2);
    assert.equal(volume.parts.frames.cache.usedBytes, HOT.length * BLOCK_BYTES);
    assert.ok((await getsOf(volume, COLD, 2)) > 0);
  });
});
