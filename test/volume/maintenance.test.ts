import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import { attachVolume } from '../../guest/volume/attach.ts';
import { checkVolume } from '../../guest/volume/check.ts';
import { createVolume } from '../../guest/volume/create.ts';
import { collectGarbage, findOrphans } from '../../guest/volume/gc.ts';
import { inspectVolume } from '../../guest/volume/inspect.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { rekey } from '../../guest/volume/rekey.ts';
import {
  createSnapshot,
  deleteSnapshot,
  findSnapshot,
  restoreMessage,
  restoreSnapshot,
} from '../../guest/volume/snapshot.ts';
import { wrapStore } from '../../shared/objects/around.ts';
import { World } from './world.ts';

const SIZE = 16 * 1024 * 1024;
const NO = { fua: false };
const block = (text: string): Buffer => Buffer.alloc(BLOCK_BYTES, text);

test('a snapshot keeps what was there, GC goes on around it, and a restore brings it back', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(SIZE));
    const volume = await attachVolume(world.access());
    for (let at = 0; at < 64; at += 1) await volume.write(at * BLOCK_BYTES, block(`first ${at} `), NO);
    await createSnapshot(volume, 'first');
    await assert.rejects(createSnapshot(volume, 'first'), { code: 'ERR_VOLUME_SNAPSHOT' });
    for (let round = 0; round < 4; round += 1) {
      for (let at = 0; at < 64; at += 1)
        await volume.write(at * BLOCK_BYTES, block(`round ${round} ${at} `), NO);
      await volume.flush();
    }
    await collectGarbage(volume, { dryRun: false });
    assert.equal((await volume.read(0, 7)).toString(), 'round 3');
    await restoreSnapshot(volume, 'first');
    for (let at = 0; at < 64; at += 1) {
      assert.deepEqual(await volume.read(at * BLOCK_BYTES, BLOCK_BYTES), block(`first ${at} `));
    }
    await volume.write(0, block('after '), NO);
    await deleteSnapshot(volume, 'first');
    await collectGarbage(volume, { dryRun: false });
    assert.equal((await volume.read(BLOCK_BYTES, 7)).toString(), 'first 1');
    await assert.rejects(restoreSnapshot(volume, 'first'), { code: 'ERR_VOLUME_SNAPSHOT' });
    await volume.detach();
    const report = await checkVolume(await inspectVolume(world.access()));
    assert.deepEqual(report.problems, []);
    assert.equal(report.orphans, 0);
    assert.equal(report.blocks, 64);
  });
});

test('with an owner in the header a restore needs their token, which works once', async () => {
  const world = new World();
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const ownerKey = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32);
  await world.run(async () => {
    await createVolume({ ...world.creation(SIZE), ownerKey });
    const volume = await attachVolume(world.access());
    await volume.write(0, block('one'), NO);
    await createSnapshot(volume, 'one');
    await volume.write(0, block('two'), NO);
    await volume.detach();
    const refused = { code: 'ERR_VOLUME_TOKEN' };
    const { head } = await inspectVolume(world.access());
    const again = await attachVolume(world.access());
    const { id } = findSnapshot(again, 'one');
    const token = sign(null, restoreMessage(again.parts.header.volumeId, head.point.hash, id), privateKey);
    await assert.rejects(restoreSnapshot(again, 'one'), refused);
    await assert.rejects(
      restoreSnapshot(again, 'one', Buffer.from(token.with(3, (token[3] ?? 0) ^ 1))),
      refused,
    );
    await restoreSnapshot(again, 'one', token);
    assert.equal((await again.read(0, 3)).toString(), 'one');
    await again.detach();
    const third = await attachVolume(world.access());
    await assert.rejects(restoreSnapshot(third, 'one', token), refused);
    await third.detach();
  });
});

test('of two snapshots of one name at once, and of a growth below another, only the first is made', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(4 * BLOCK_BYTES));
    const volume = await attachVolume(world.access());
    const snapshots = await Promise.allSettled([createSnapshot(volume, 'a'), createSnapshot(volume, 'a')]);
    assert.deepEqual(
      snapshots.map(({ status }) => status),
      ['fulfilled', 'rejected'],
    );
    assert.equal(volume.parts.checkpointer.snapshots.length, 1);
    const sizes = [16, 8].map((blocks) => volume.grow(blocks * BLOCK_BYTES));
    assert.deepEqual(
      (await Promise.allSettled(sizes)).map(({ status }) => status),
      ['fulfilled', 'rejected'],
    );
    assert.equal(volume.sizeBytes, 16 * BLOCK_BYTES);
    await volume.detach();
    assert.equal((await attachVolume(world.access())).sizeBytes, 16 * BLOCK_BYTES);
  });
});

test('a hole up to the old end that is made while the volume grows leaves what is written behind that', async () => {
  const world = new World();
  world.store = wrapStore(world.store, async ({ operation, signal }, run) => {
    if (operation === 'get') await world.clock.sleep(5000);
    return run(signal);
  });
  await world.run(async () => {
    await createVolume(world.creation(BLOCK_BYTES + 512));
    const volume = await attachVolume(world.access());
    await volume.write(0, Buffer.alloc(BLOCK_BYTES + 512, 1), { fua: true });
    // The half block that it begins with has to be fetched, so that the hole comes late.
    const hole = volume.trim(BLOCK_BYTES / 2, BLOCK_BYTES / 2 + 512, { fua: false });
    await volume.grow(4 * BLOCK_BYTES);
    const tail = Buffer.alloc(BLOCK_BYTES - 512, 2);
    await volume.write(BLOCK_BYTES + 512, tail, { fua: false });
    await hole;
    assert.deepEqual(await volume.read(BLOCK_BYTES + 512, tail.length), tail);
    assert.deepEqual(await volume.read(BLOCK_BYTES, 512), Buffer.alloc(512));
    volume.close();
  });
});

test('a volume grows, and what is new reads as zeros', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(1000));
    const volume = await attachVolume(world.access());
    await volume.write(900, Buffer.alloc(100, 'x'), NO);
    await assert.rejects(volume.write(999, Buffer.alloc(2), NO), { code: 'ERR_VOLUME_RANGE' });
    await assert.rejects(volume.grow(999), { code: 'ERR_VOLUME_RANGE' });
    await volume.grow(2 ** 40);
    await volume.write(2 ** 40 - 3, Buffer.from('end'), NO);
    await volume.detach();
    const again = await attachVolume(world.access());
    assert.equal(again.sizeBytes, 2 ** 40);
    assert.deepEqual(await again.read(998, 6), Buffer.from('xx\0\0\0\0'));
    assert.equal((await again.read(2 ** 40 - 3, 3)).toString(), 'end');
    await again.detach();
  });
});

test('after a rekey nothing is under the old keys, and their wraps are gone', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(SIZE));
    const volume = await attachVolume(world.access());
    for (let at = 0; at < 100; at += 1) await volume.write(at * BLOCK_BYTES, block(`block ${at} `), NO);
    await volume.flush();
    const wraps = (): string[] => world.objects.keys().filter((key) => key.startsWith('vol/k/'));
    assert.equal(wraps().length, 1);
    const [old] = wraps();
    assert.deepEqual(await rekey(volume), { generation: 2, isDrained: true });
    assert.equal(wraps().length, 1);
    assert.notEqual(wraps()[0], old);
    await volume.parts.reaper.drained();
    await volume.detach();
    const again = await attachVolume(world.access());
    for (let at = 0; at < 100; at += 1) {
      assert.deepEqual(await again.read(at * BLOCK_BYTES, BLOCK_BYTES), block(`block ${at} `));
    }
    await again.detach();
    assert.deepEqual((await checkVolume(await inspectVolume(world.access()))).problems, []);
  });
});

test('GC deletes what crashed instances left behind, and nothing else; a dry run deletes nothing', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(SIZE));
    const volume = await attachVolume(world.access());
    await volume.write(0, Buffer.alloc(20 * BLOCK_BYTES, 'kept'), NO);
    await volume.flush();
    world.objects.overwrite(`vol/s/ab/ab${'0'.repeat(30)}`, Buffer.alloc(100));
    world.objects.overwrite('vol/c/000000000000-000000000099', Buffer.alloc(50));
    const before = world.objects.keys();
    const dry = await collectGarbage(volume, { dryRun: true });
    assert.equal(dry.orphans, 2, JSON.stringify(await findOrphans(volume)));
    assert.equal(dry.orphanBytes, 150);
    assert.deepEqual(world.objects.keys(), before);
    const wet = await collectGarbage(volume, { dryRun: false });
    assert.equal(wet.orphans, 2);
    assert.ok(!world.objects.keys().some((key) => key.includes('99') || key.includes('/ab/')));
    assert.deepEqual(await volume.read(0, 4), Buffer.from('kept'));
    await volume.detach();
    assert.equal((await checkVolume(await inspectVolume(world.access()))).orphans, 0);
  });
});

test('mode none works without an anchor, and says what that means', async () => {
  const world = new World();
  const said: string[] = [];
  await world.run(async () => {
    const { environment } = world.access();
    const log = {
      info() {},
      error() {},
      warn: (_fields: object, message: string) => void said.push(message),
    };
    const access = { ...world.access(), anchor: undefined, environment: { ...environment, log } };
    await createVolume({ ...access, sizeBytes: SIZE, mode: { kind: 'none' } });
    for (let round = 0; round < 30; round += 1) {
      const volume = await attachVolume({ ...access, takeover: true });
      if (round > 0)
        assert.equal((await volume.read(0, 20)).toString(), `round ${round - 1} `.repeat(3).slice(0, 20));
      await volume.write(0, block(`round ${round} `), NO);
      await volume.flush();
      volume.close();
    }
  });
  assert.ok(said.some((message) => message.includes('rollback')));
});

test('mode lazy answers before the anchor does, and never owes it more than it says', async () => {
  const world = new World();
  let isAway = false;
  const advance = world.anchor.advance.bind(world.anchor);
  world.anchor.advance = async (...args) => {
    while (isAway) await world.clock.sleep(10);
    return advance(...args);
  };
  await world.run(async () => {
    await createVolume({ ...world.creation(SIZE), mode: { kind: 'lazy', maxMs: 1000, maxCommits: 3 } });
    const volume = await attachVolume(world.access());
    isAway = true;
    const anchored = volume.parts.anchoredPoint().seq;
    for (let count = 0; count < 3; count += 1) {
      await volume.write(0, block(`owed ${count}`), NO);
      await volume.flush();
    }
    assert.equal(volume.parts.anchoredPoint().seq, anchored);
    await volume.write(0, block('one too many'), NO);
    let isAnswered = false;
    const flush = volume.flush().then(() => {
      isAnswered = true;
    });
    await world.clock.sleep(500);
    assert.equal(isAnswered, false);
    isAway = false;
    await flush;
    assert.ok(volume.parts.anchoredPoint().seq > anchored);
    await volume.detach();
  });
});

test('what many small flushes leave behind becomes few objects', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(SIZE));
    const volume = await attachVolume(world.access());
    for (let at = 0; at < 300; at += 1) {
      await volume.write(at * BLOCK_BYTES, block(`small ${at} `), NO);
      await volume.flush();
    }
    const before = world.objects.keys().length;
    // Somebody goes on flushing meanwhile, one block at a time.
    let isOver = false;
    const busy = (async () => {
      while (!isOver) {
        await volume.write(SIZE - BLOCK_BYTES, block('busy'), NO);
        await volume.flush();
        await world.clock.sleep(40);
      }
    })();
    await collectGarbage(volume, { dryRun: false });
    isOver = true;
    await busy;
    await volume.parts.checkpointer.request();
    await volume.parts.reaper.drained();
    await volume.detach();
    const left = world.objects.keys().length;
    assert.ok(before > 300 && left < 100, `${before} objects, then ${left}`);
    const again = await attachVolume(world.access());
    for (let at = 0; at < 300; at += 1) {
      assert.deepEqual(await again.read(at * BLOCK_BYTES, BLOCK_BYTES), block(`small ${at} `));
    }
    await again.detach();
    assert.deepEqual((await checkVolume(await inspectVolume(world.access()))).problems, []);
  });
});
