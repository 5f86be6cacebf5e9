import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attachVolume } from '../../guest/volume/attach.ts';
import { createVolume } from '../../guest/volume/create.ts';
import type { Volume } from '../../guest/volume/engine.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { wrapStore } from '../../shared/objects/around.ts';
import { World } from './world.ts';

const SIZE = 4 * 1024 * 1024 + 512;
const NO = { fua: false };

async function attached(world: World): Promise<Volume> {
  return attachVolume(world.access());
}

test('what was written is read, before and after a flush, a detach and an attach', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(SIZE));
    const volume = await attached(world);
    assert.equal(volume.sizeBytes, SIZE);
    assert.deepEqual(await volume.read(0, 100), Buffer.alloc(100));
    await volume.write(10_000, Buffer.from('across a block border'.repeat(300)), NO);
    const text = Buffer.from('across a block border'.repeat(300));
    assert.deepEqual(await volume.read(10_000, text.length), text);
    await volume.flush();
    assert.deepEqual(await volume.read(10_000, text.length), text);
    await volume.write(SIZE - 3, Buffer.from('end'), NO);
    await volume.detach();
    const again = await attached(world);
    assert.deepEqual(await again.read(10_000, text.length), text);
    assert.deepEqual(await again.read(9_990, 10), Buffer.alloc(10));
    assert.equal((await again.read(SIZE - 3, 3)).toString(), 'end');
    await again.detach();
  });
});

test('a flush of up to inlineBytes is exactly one PUT, and a clean one none', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(SIZE));
    const volume = await attached(world);
    const { counts } = volume.parts.objects;
    for (const blocks of [1, 3, 8]) {
      await volume.write(0, Buffer.alloc(blocks * BLOCK_BYTES, blocks), NO);
      const before = counts.puts;
      await volume.flush();
      assert.equal(counts.puts - before, 1);
      await volume.flush();
      assert.equal(counts.puts - before, 1);
    }
    await volume.write(0, Buffer.alloc(12 * BLOCK_BYTES, 1), NO);
    const before = counts.puts;
    await volume.flush();
    assert.equal(counts.puts - before, 2);
    volume.close();
  });
});

test('flushes of one turn share a commit', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(SIZE));
    const volume = await attached(world);
    const before = volume.parts.committer.commitCount;
    await Promise.all(
      Array.from({ length: 16 }, async (_, index) => {
        await volume.write(index * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, index), NO);
        await volume.flush();
      }),
    );
    assert.ok(volume.parts.committer.commitCount - before <= 2);
    volume.close();
  });
});

test('a cold read is exactly one range GET', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(SIZE));
    const volume = await attached(world);
    await volume.write(0, Buffer.alloc(8 * BLOCK_BYTES, 5), NO);
    await volume.detach();
    const again = await attached(world);
    const { counts } = again.parts.objects;
    const before = { ...counts };
    assert.deepEqual(await again.read(3 * BLOCK_BYTES, BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES, 5));
    assert.equal(counts.gets - before.gets, 1);
    assert.equal(counts.getBytes - before.getBytes, 8 * BLOCK_BYTES + 16);
    again.close();
  });
});

test('frames of one object with little between them are one range GET', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(SIZE));
    const volume = await attached(world);
    // A hole behind each block makes it a frame of its own.
    for (const block of [0, 2, 4, 6])
      await volume.write(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, 5), NO);
    await volume.flush();
    await volume.write(2 * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, 6), NO);
    await volume.detach();
    const again = await attached(world);
    const { counts } = again.parts.objects;
    const before = counts.gets;
    const read = await again.read(0, 8 * BLOCK_BYTES);
    assert.deepEqual(
      Array.from({ length: 8 }, (_, block) => read[block * BLOCK_BYTES]),
      [5, 0, 6, 0, 5, 0, 5, 0],
    );
    assert.equal(counts.gets - before, 2);
    again.close();
  });
});

test('holes read as zeros, are reported as holes, and give their space back', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(64 * 1024 * 1024));
    const volume = await attached(world);
    for (let at = 0; at < 64; at += 8) {
      await volume.write(at * BLOCK_BYTES, Buffer.alloc(8 * BLOCK_BYTES, at + 1), NO);
      await volume.flush();
    }
    await volume.trim(100, 40 * BLOCK_BYTES, NO);
    assert.deepEqual(await volume.read(0, 100), Buffer.alloc(100, 1));
    assert.deepEqual(await volume.read(100, 200), Buffer.alloc(200));
    const extents = await volume.blockStatus(0, 64 * 1024 * 1024);
    assert.deepEqual(
      extents.map(({ length, hole }) => [length, hole]),
      [
        [BLOCK_BYTES, false],
        [39 * BLOCK_BYTES, true],
        [24 * BLOCK_BYTES, false],
        [64 * 1024 * 1024 - 64 * BLOCK_BYTES, true],
      ],
    );
    await volume.trim(0, 64 * 1024 * 1024, NO);
    await volume.flush();
    await volume.parts.checkpointer.request();
    await volume.parts.checkpointer.request();
    await volume.parts.reaper.drained();
    const left = world.objects.keys().filter((key) => key.startsWith('vol/s/') || key.startsWith('vol/c/'));
    assert.ok(left.length <= 8, left.join('\n'));
    await volume.detach();
  });
});

/** A store whose GETs take a second of the world's clock. */
function slowReads(world: World): void {
  const { store } = world;
  world.store = {
    ...store,
    get: async (key, options) => {
      await world.clock.sleep(1000);
      return store.get(key, options);
    },
  };
}

test('a partial write never brings back what was overwritten while the rest of its block was fetched', async () => {
  for (const change of ['write', 'trim', 'partial'] as const) {
    const world = new World();
    slowReads(world);
    await world.run(async () => {
      await createVolume(world.creation(SIZE));
      const first = await attached(world);
      await first.write(0, Buffer.alloc(BLOCK_BYTES, 'old '), NO);
      await first.detach();
      const volume = await attached(world);
      const partial = volume.write(10, Buffer.from('piece'), NO);
      await world.clock.sleep(500);
      if (change === 'write') await volume.write(0, Buffer.alloc(BLOCK_BYTES, 'new '), NO);
      if (change === 'trim') await volume.trim(0, BLOCK_BYTES, NO);
      const other = change === 'partial' ? volume.write(100, Buffer.from('other'), NO) : undefined;
      // Far enough for the change to have left memory when the fetch ends.
      await volume.flush();
      await Promise.all([partial, other]);
      const fill = { write: 'new ', trim: Buffer.alloc(1), partial: 'old ' }[change];
      const expected = Buffer.alloc(BLOCK_BYTES, fill);
      expected.set(Buffer.from('piece'), 10);
      if (change === 'partial') expected.set(Buffer.from('other'), 100);
      assert.deepEqual(await volume.read(0, BLOCK_BYTES), expected, change);
      volume.close();
    });
  }
});

test('data that reaches the store while somebody looks for holes is no hole', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(SIZE));
    const before = await attached(world);
    await before.write(0, Buffer.alloc(BLOCK_BYTES, 1), NO);
    await before.parts.checkpointer.request();
    await before.detach();
    // The page of the index that tells what is a hole comes late, the flush does not.
    let isSlow = false;
    world.store = wrapStore(world.store, async ({ operation, signal }, run) => {
      if (isSlow && operation === 'get') await world.clock.sleep(5000);
      return run(signal);
    });
    const volume = await attached(world);
    // Brings the pages above that one into memory.
    await volume.blockStatus(600 * BLOCK_BYTES, BLOCK_BYTES);
    isSlow = true;
    await volume.write(5 * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, 2), NO);
    const looking = volume.blockStatus(0, 8 * BLOCK_BYTES);
    const lookingFarOff = volume.blockStatus(5 * BLOCK_BYTES, 3 * BLOCK_BYTES);
    await volume.flush();
    assert.equal(volume.parts.memory.usedBytes, 0);
    const told = (await looking).map(({ length, hole }) => [length / BLOCK_BYTES, hole]);
    assert.deepEqual(told, [
      [1, false],
      [4, true],
      [1, false],
      [2, true],
    ]);
    assert.deepEqual((await lookingFarOff)[0], { length: BLOCK_BYTES, hole: false, zero: false });
    volume.close();
  });
});

test('what is given back up to an odd end is a hole up to that end, and zeros when the volume grows', async () => {
  const world = new World();
  const sizeBytes = 4 * BLOCK_BYTES + 1536;
  await world.run(async () => {
    await createVolume(world.creation(sizeBytes));
    const volume = await attached(world);
    for (const giveBack of [
      () => volume.trim(3 * BLOCK_BYTES, sizeBytes - 3 * BLOCK_BYTES, NO),
      () => volume.writeZeroes(4 * BLOCK_BYTES + 7, 1529, { fua: false, noHole: false }),
    ]) {
      await volume.write(0, Buffer.alloc(sizeBytes, 1), { fua: true });
      await giveBack();
      await volume.flush();
    }
    // The second began within the last block: what is before it stays.
    const found = await volume.read(4 * BLOCK_BYTES, 1536);
    assert.deepEqual(found, Buffer.concat([Buffer.alloc(7, 1), Buffer.alloc(1529)]));
    await volume.trim(4 * BLOCK_BYTES, 1536, { fua: true });
    const extents = await volume.blockStatus(0, sizeBytes);
    assert.deepEqual(
      extents.map(({ length, hole }) => [length, hole]),
      [
        [4 * BLOCK_BYTES, false],
        [1536, true],
      ],
    );
    await volume.grow(6 * BLOCK_BYTES);
    assert.deepEqual(await volume.read(4 * BLOCK_BYTES, 2 * BLOCK_BYTES), Buffer.alloc(2 * BLOCK_BYTES));
    await volume.detach();
  });
});
