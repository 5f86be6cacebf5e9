import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attachVolume } from '../../guest/volume/attach.ts';
import { checkVolume } from '../../guest/volume/check.ts';
import { createVolume, type VolumeAccess } from '../../guest/volume/create.ts';
import type { Volume } from '../../guest/volume/engine.ts';
import { collectGarbage } from '../../guest/volume/gc.ts';
import { inspectVolume } from '../../guest/volume/inspect.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { claimName } from '../../guest/volume/names.ts';
import { rekey } from '../../guest/volume/rekey.ts';
import type { ObjectStore } from '../../shared/objects/store.ts';
import { World } from './world.ts';

const SIZE = 16 * 1024 * 1024;
const NO = { fua: false };
/** More than one commit carries itself: it goes into segments. */
const MUCH = 40 * BLOCK_BYTES;

/** A store whose PUTs under a prefix stay on the wire until they are let through, whoever sent them. */
class SlowWire {
  readonly #inner: ObjectStore;
  readonly #late = new Map<string, Buffer>();
  holds: string | undefined;

  constructor(inner: ObjectStore) {
    this.#inner = inner;
  }

  get store(): ObjectStore {
    return {
      ...this.#inner,
      list: (...args) => this.#inner.list(...args),
      putIfAbsent: (key, bytes, options) => {
        if (this.holds === undefined || !key.startsWith(this.holds)) {
          return this.#inner.putIfAbsent(key, bytes, options);
        }
        this.#late.set(key, Buffer.from(bytes));
        return new Promise(() => undefined);
      },
    };
  }

  get count(): number {
    return this.#late.size;
  }

  /** They arrive, as if nobody had waited. Returns those that made an object. */
  async letThrough(): Promise<string[]> {
    const made: string[] = [];
    for (const [key, bytes] of this.#late) {
      if ((await this.#inner.putIfAbsent(key, bytes)) === 'created') made.push(key);
    }
    this.#late.clear();
    return made;
  }
}

async function report(access: VolumeAccess) {
  const { problems, orphans } = await checkVolume(await inspectVolume(access));
  assert.deepEqual(problems, []);
  return orphans;
}

/** `check` counts exactly these, `gc` deletes exactly these, and what the volume holds stays as it is. */
async function assertOrphans(world: World, names: readonly string[]): Promise<void> {
  assert.equal(await report(world.access()), names.length);
  const volume = await attachVolume(world.access());
  const before = world.objects.keys();
  const { orphans } = await collectGarbage(volume, { dryRun: true });
  assert.equal(orphans, names.length);
  await collectGarbage(volume, { dryRun: false });
  const after = new Set(world.objects.keys());
  for (const name of names) assert.ok(before.includes(name) && !after.has(name), name);
  assert.deepEqual(await volume.read(0, MUCH), Buffer.alloc(MUCH, 'kept '));
  await volume.detach();
  assert.equal(await report(world.access()), 0);
}

/** A volume with something in it, an instance that hangs with PUTs on the wire, and another that has taken the volume over. */
async function overtaken(world: World, hang: (old: Volume, wire: SlowWire) => Promise<void>) {
  const wire = new SlowWire(world.store);
  await createVolume(world.creation(SIZE));
  const old = await attachVolume({ ...world.access(), store: wire.store });
  await old.write(0, Buffer.alloc(MUCH, 'kept '), NO);
  await old.flush();
  await hang(old, wire);
  const next = await attachVolume({ ...world.access(), takeover: true });
  return { wire, old, next };
}

for (const kind of ['segment', 'commit'] as const) {
  const prefix = kind === 'segment' ? 'vol/s/' : 'vol/c/';
  for (const when of ['before', 'after'] as const) {
    test(`a fenced writer’s ${kind} that comes late, ${when} a collection, is an orphan that gc deletes`, async () => {
      const world = new World();
      await world.run(async () => {
        const { wire, old, next } = await overtaken(world, async (volume, slow) => {
          slow.holds = prefix;
          await volume.write(0, Buffer.alloc(MUCH, 'lost '), NO);
          void volume.flush().catch(() => undefined);
          while (slow.count === 0) await world.clock.sleep(10);
        });
        if (when === 'after') await collectGarbage(next, { dryRun: false });
        const late = await wire.letThrough();
        assert.ok(late.length > 0 && late.every((name) => name.startsWith(prefix)));
        // The instance that has the volume does not mind.
        await next.write(MUCH, Buffer.alloc(BLOCK_BYTES, 'more '), NO);
        await next.detach();
        old.close();
        // What else it had stored for the commit that never came is left behind as well.
        const orphans = await report(world.access());
        assert.ok(orphans >= late.length);
        const volume = await attachVolume(world.access());
        await collectGarbage(volume, { dryRun: false });
        await volume.detach();
        const kept = world.objects.keys();
        assert.ok(late.every((name) => !kept.includes(name)));
        assert.equal(await report(world.access()), 0);
        // And when they come once more: exactly they.
        for (const name of late) world.objects.overwrite(name, Buffer.alloc(100));
        await assertOrphans(world, late);
      });
    });
  }
}

test('a claim that comes late is an orphan once the volume is past its epoch', async () => {
  const world = new World();
  await world.run(async () => {
    const { old, next } = await overtaken(world, async () => undefined);
    old.close();
    await next.detach();
    const late = `vol/${claimName(old.parts.epoch)}`;
    world.objects.overwrite(late, Buffer.alloc(80));
    assert.equal(await report(world.access()), 1);
    // The next attach forgets the claims before its own by itself.
    await (await attachVolume(world.access())).detach();
    world.objects.overwrite(late, Buffer.alloc(80));
    await assertOrphans(world, [late]);
  });
});

test('new keys whose wrap comes late stand in nobody’s way, and are destroyed with the old ones', async () => {
  const world = new World();
  await world.run(async () => {
    const { wire, old, next } = await overtaken(world, async (volume, slow) => {
      slow.holds = 'vol/k/';
      void rekey(volume).catch(() => undefined);
      while (slow.count === 0) await world.clock.sleep(10);
    });
    const [late = ''] = await wire.letThrough();
    assert.match(late, /^vol\/k\/00000002-/);
    old.close();
    // It may be a rekey that is under way: nobody deletes it, and nobody uses it.
    await collectGarbage(next, { dryRun: false });
    assert.deepEqual(await rekey(next), { generation: 3, isDrained: true });
    assert.deepEqual(
      world.objects.keys().filter((key) => key.startsWith('vol/k/')).length,
      1,
      'only the newest keys are left',
    );
    await next.detach();
    // Late once more, after its generation has passed.
    world.objects.overwrite(late, Buffer.alloc(104));
    await assertOrphans(world, [late]);
  });
});

test('a rekey that died before it destroyed the old keys leaves orphans, and the next one destroys them', async () => {
  const world = new World();
  await world.run(async () => {
    await createVolume(world.creation(SIZE));
    const volume = await attachVolume(world.access());
    await volume.write(0, Buffer.alloc(MUCH, 'kept '), NO);
    await rekey(volume);
    await volume.detach();
    const [wrap = ''] = world.objects.keys().filter((key) => key.startsWith('vol/k/'));
    const old = wrap.replace('00000002', '00000001');
    world.objects.overwrite(old, Buffer.alloc(104));
    await assertOrphans(world, [old]);
    world.objects.overwrite(old, Buffer.alloc(104));
    const again = await attachVolume(world.access());
    await rekey(again);
    await again.detach();
    assert.ok(!world.objects.keys().includes(old));
  });
});
