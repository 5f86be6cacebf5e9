import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attachVolume } from '../../guest/volume/attach.ts';
import { checkVolume } from '../../guest/volume/check.ts';
import { createVolume } from '../../guest/volume/create.ts';
import type { Volume } from '../../guest/volume/engine.ts';
import { inspectVolume } from '../../guest/volume/inspect.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { PosternError } from '../../shared/errors.ts';
import { wrapStore } from '../../shared/objects/around.ts';
import { createMemoryStore } from '../../shared/objects/memory.ts';
import { MemoryAnchor } from './memory-anchor.ts';
import { World } from './world.ts';

const SIZE = 16 * 1024 * 1024;
const NO = { fua: false };

async function made(world: World): Promise<void> {
  await createVolume(world.creation(SIZE));
}

async function withData(world: World, flushes = 3): Promise<Volume> {
  const volume = await attachVolume({ ...world.access(), takeover: true });
  for (let at = 0; at < flushes; at += 1) {
    await volume.write(at * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, `data ${at} `), NO);
    await volume.flush();
  }
  return volume;
}

test('what does not exist is not attached, and the error says how to create it', async () => {
  const world = new World();
  await world.run(() =>
    assert.rejects(attachVolume(world.access()), { code: 'ERR_VOLUME_NOT_FOUND', message: /create data/ }),
  );
  assert.deepEqual(world.objects.keys(), []);
});

test('creating is done once, and never over something', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    const before = world.objects.keys();
    await assert.rejects(made(world), { code: 'ERR_VOLUME_EXISTS' });
    assert.deepEqual(world.objects.keys(), before);
  });
});

test('an anchor that does not know the volume is never a first boot', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    world.anchor = new MemoryAnchor();
    await assert.rejects(attachVolume(world.access()), { code: 'ERR_ANCHOR_UNKNOWN' });
  });
});

test('another key does not open it', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    const keyProvider = { kind: 'test', rootKey: async () => Buffer.alloc(32, 9) };
    await assert.rejects(attachVolume({ ...world.access(), keyProvider }), { code: 'ERR_VOLUME_KEY' });
  });
});

test('another volume under this one’s name is refused, even of the same key', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    await createVolume({ ...world.creation(SIZE), prefix: 'other', name: 'other' });
    for (const key of world.objects.keys().filter((name) => name.startsWith('vol/'))) {
      world.objects.overwrite(key, world.objects.peek(key.replace('vol/', 'other/')) ?? Buffer.alloc(0));
    }
    await assert.rejects(attachVolume(world.access()), { code: 'ERR_VOLUME_KEY' });
  });
});

test('every byte of the header is authenticated', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    const header = world.objects.peek('vol/hdr') ?? Buffer.alloc(0);
    for (let at = 0; at < header.length; at += 1) {
      const changed = Buffer.from(header);
      changed[at] = (changed[at] ?? 0) ^ 0x40;
      world.objects.overwrite('vol/hdr', changed);
      await assert.rejects(
        attachVolume(world.access()),
        (error) => error instanceof PosternError,
        `byte ${at}`,
      );
    }
  });
});

test('a volume that was not detached is taken over only by who says so', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    const volume = await withData(world);
    volume.close();
    await assert.rejects(attachVolume(world.access()), { code: 'ERR_VOLUME_IN_USE', message: /--takeover/ });
    const again = await attachVolume({ ...world.access(), takeover: true });
    assert.equal((await again.read(0, 6)).toString(), 'data 0');
    await again.detach();
    await (await attachVolume(world.access())).detach();
  });
});

test('the store put back to an older state is refused, and the missing commit named', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    const volume = await withData(world);
    const old = world.objects.fork();
    await volume.write(0, Buffer.from('newer'), NO);
    await volume.flush();
    const { epoch, seq } = volume.parts.anchoredPoint();
    volume.close();
    world.store = createMemoryStore(old);
    const name = `c/${epoch.toString(16).padStart(12, '0')}-${seq.toString(16).padStart(12, '0')}`;
    const refused = { code: 'ERR_VOLUME_MISSING', message: new RegExp(name) };
    await assert.rejects(attachVolume({ ...world.access(), takeover: true }), refused);
  });
});

test('another commit under the acknowledged one’s name is refused', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    const volume = await withData(world);
    const fork = world.objects.fork();
    volume.close();
    // The same keys and the same state, gone on differently: a fork of the guest over its own copy of store and anchor.
    const forked = new World(2);
    forked.store = createMemoryStore(fork);
    for (const [key, head] of world.heads.heads) forked.heads.heads.set(key, head);
    const twin = await attachVolume({
      ...forked.access(),
      takeover: true,
      environment: world.access().environment,
    });
    twin.close();
    const own = await attachVolume({ ...world.access(), takeover: true });
    const { epoch, seq } = own.parts.anchoredPoint();
    own.close();
    assert.deepEqual(twin.parts.anchoredPoint().seq, seq);
    const name = `vol/c/${epoch.toString(16).padStart(12, '0')}-${seq.toString(16).padStart(12, '0')}`;
    world.objects.overwrite(name, fork.peek(name) ?? Buffer.alloc(0));
    await assert.rejects(attachVolume({ ...world.access(), takeover: true }), { code: 'ERR_VOLUME_STALE' });
  });
});

test('of two instances the older is shut out for good, and says so', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    const old = await withData(world);
    const next = await attachVolume({ ...world.access(), takeover: true });
    await old.write(0, Buffer.from('late'), NO);
    await assert.rejects(old.flush(), { code: 'ERR_VOLUME_FENCED' });
    await assert.rejects(old.flush(), { code: 'ERR_VOLUME_FENCED' });
    await assert.rejects(old.read(0, 1), { code: 'ERR_VOLUME_FENCED' });
    await assert.rejects(old.write(0, Buffer.from('x'), NO), { code: 'ERR_VOLUME_FENCED' });
    assert.equal((await next.read(0, 4)).toString(), 'data');
    await next.detach();
  });
});

test('of many attaches at once one wins, and what it gives out goes on working', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    const attempts = Array.from({ length: 5 }, () => attachVolume(world.access()));
    const results = await Promise.allSettled(attempts);
    const won = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    assert.equal(won.length, 1);
    await won[0]?.write(0, Buffer.from('mine'), NO);
    await won[0]?.flush();
  });
});

test('a busy instance that will not stop is overtaken all the same', async () => {
  const world = new World();
  const { store } = world;
  const slow = async <T>(work: () => Promise<T>): Promise<T> => {
    await world.clock.sleep(20);
    return work();
  };
  world.store = { ...store, get: (key, options) => slow(() => store.get(key, options)) };
  await world.run(async () => {
    await made(world);
    const busy = await attachVolume(world.access());
    const writing = (async () => {
      for (let count = 0; ; count += 1) {
        await busy.write(0, Buffer.from(`busy ${count}`), NO);
        await busy.flush();
        await world.clock.sleep(1);
      }
    })();
    writing.catch(() => undefined);
    await world.clock.sleep(100);
    const next = await attachVolume({ ...world.access(), takeover: true });
    await assert.rejects(writing, { code: 'ERR_VOLUME_FENCED' });
    await next.detach();
  });
});

test('a changed, a cut and a deleted object are errors of whoever reads them, never zeros', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    const volume = await attachVolume(world.access());
    await volume.write(0, Buffer.alloc(40 * BLOCK_BYTES, 'much'), NO);
    await volume.detach();
    const honest = world.objects.fork();
    const segments = world.objects.keys().filter((key) => key.startsWith('vol/s/'));
    assert.ok(segments.length > 1);
    const harm: [string, (key: string, bytes: Buffer) => void][] = [
      ['ERR_VOLUME_CORRUPT', (key, bytes) => world.objects.overwrite(key, Buffer.alloc(bytes.length))],
      [
        'ERR_VOLUME_CORRUPT',
        (key, bytes) => world.objects.overwrite(key, Buffer.from(bytes.with(100, (bytes[100] ?? 0) ^ 1))),
      ],
      ['ERR_STORE_CORRUPT', (key) => world.objects.overwrite(key, Buffer.alloc(10))],
      ['ERR_VOLUME_MISSING', (key) => void world.objects.delete(key)],
    ];
    for (const [code, change] of harm) {
      for (const key of segments) change(key, honest.peek(key) ?? Buffer.alloc(0));
      const again = await attachVolume({ ...world.access(), takeover: true });
      await assert.rejects(again.read(0, 20 * BLOCK_BYTES), { code });
      again.close();
      const report = await checkVolume(await inspectVolume(world.access()));
      assert.ok(report.problemCount >= segments.length, code);
      for (const key of segments) world.objects.overwrite(key, honest.peek(key) ?? Buffer.alloc(0));
    }
    const report = await checkVolume(await inspectVolume(world.access()));
    assert.deepEqual(report.problems, []);
  });
});

test('segments and frames of one volume swapped among themselves do not verify', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    const volume = await attachVolume(world.access());
    await volume.write(0, Buffer.alloc(48 * BLOCK_BYTES, 'same everywhere '), NO);
    await volume.detach();
    const segments = world.objects.keys().filter((key) => key.startsWith('vol/s/'));
    const [one = '', two = ''] = segments;
    const bytes = world.objects.peek(one) ?? Buffer.alloc(0);
    world.objects.overwrite(one, world.objects.peek(two) ?? Buffer.alloc(0));
    world.objects.overwrite(two, bytes);
    const again = await attachVolume(world.access());
    await assert.rejects(again.read(0, 48 * BLOCK_BYTES), { code: 'ERR_VOLUME_CORRUPT' });
    again.close();
  });
});

test('a store or anchor that is away for too long fails every waiting flush, and nothing later succeeds', async () => {
  for (const away of ['store', 'anchor'] as const) {
    const world = new World();
    await world.run(async () => {
      await made(world);
      const { store, anchor } = world;
      let isAway = false;
      const gate = async (): Promise<void> => {
        if (isAway)
          throw new PosternError(
            away === 'store' ? 'ERR_STORE_UNAVAILABLE' : 'ERR_ANCHOR_UNAVAILABLE',
            'away',
          );
      };
      if (away === 'store')
        world.store = { ...store, putIfAbsent: (...args) => gate().then(() => store.putIfAbsent(...args)) };
      else {
        const advance = anchor.advance.bind(anchor);
        anchor.advance = (...args) => gate().then(() => advance(...args));
      }
      const volume = await attachVolume(world.access());
      isAway = true;
      await volume.write(0, Buffer.from('lost'), NO);
      const flushes = [volume.flush(), volume.flush()];
      for (const flush of flushes) await assert.rejects(flush, { code: 'ERR_VOLUME_POISONED' });
      isAway = false;
      await assert.rejects(volume.flush(), { code: 'ERR_VOLUME_POISONED' });
      await assert.rejects(volume.write(0, Buffer.from('x'), NO), { code: 'ERR_VOLUME_POISONED' });
      assert.equal((await volume.read(0, 4)).toString(), 'lost');
      volume.close();
      await attachVolume({ ...world.access(), takeover: true });
    });
  }
});

test('the store holds nothing that looks like what was written', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    const volume = await attachVolume(world.access());
    await volume.write(0, Buffer.alloc(30 * BLOCK_BYTES, 'a secret that repeats, '), NO);
    await volume.flush();
    await volume.parts.checkpointer.request();
    await volume.detach();
    for (const key of world.objects.keys()) {
      assert.ok(!(world.objects.peek(key) ?? Buffer.alloc(0)).includes('secret'), key);
    }
  });
});

test('however many attaches died between their claim and their commit, the next one works', async () => {
  const world = new World();
  await world.run(async () => {
    await made(world);
    const { store } = world;
    world.store = wrapStore(store, (call, run) => {
      if (call.operation === 'put' && call.key.startsWith('vol/c/')) {
        throw new PosternError('ERR_STORE_DENIED', 'this one dies');
      }
      return run(call.signal);
    });
    for (let attach = 0; attach < 200; attach += 1) await assert.rejects(attachVolume(world.access()));
    world.store = store;
    const volume = await attachVolume(world.access());
    await volume.write(0, Buffer.alloc(BLOCK_BYTES, 'alive'), { fua: true });
    await volume.detach();
  });
});
