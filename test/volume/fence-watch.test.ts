import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attachVolume } from '../../guest/volume/attach.ts';
import { createVolume } from '../../guest/volume/create.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { PosternError } from '../../shared/errors.ts';
import { World } from './world.ts';

const MIB = 1024 * 1024;

async function attached(world: World) {
  await createVolume(world.creation(MIB));
  const volume = await attachVolume(world.access());
  await volume.write(0, Buffer.alloc(BLOCK_BYTES, 'old'), { fua: true });
  return volume;
}

test('an instance that only reads learns within the bound that another took the volume, and shows nothing old', async () => {
  const world = new World();
  await world.run(async () => {
    const idle = await attached(world);
    const failures: string[] = [];
    idle.parts.health.onFailure(({ code }) => failures.push(code));
    const next = await attachVolume({ ...world.access(), takeover: true });
    await next.write(0, Buffer.alloc(BLOCK_BYTES, 'new'), { fua: true });
    await world.clock.sleep(world.limits.fenceCheckMs + world.limits.attemptMs);
    assert.deepEqual(failures, ['ERR_VOLUME_FENCED']);
    assert.equal(idle.parts.health.state, 'fenced');
    await assert.rejects(idle.read(0, BLOCK_BYTES), { code: 'ERR_VOLUME_FENCED' });
    assert.equal(next.parts.health.state, 'serving');
    await next.detach();
  });
});

test('an anchor that is out of reach for hours shuts out nobody who writes nothing, and is asked again', async () => {
  const world = new World();
  const { anchor } = world;
  let reads = 0;
  let isAway = false;
  world.anchor = {
    capabilities: anchor.capabilities,
    create: (...words) => anchor.create(...words),
    advance: (...words) => anchor.advance(...words),
    async read(...words) {
      reads += 1;
      if (isAway) throw new PosternError('ERR_ANCHOR_UNAVAILABLE', 'away');
      return anchor.read(...words);
    },
  };
  await world.run(async () => {
    const idle = await attached(world);
    isAway = true;
    reads = 0;
    await world.clock.sleep(3 * 3_600_000);
    assert.equal(idle.parts.health.state, 'serving');
    assert.ok(reads > 100, `${reads} reads`);
    isAway = false;
    const next = await attachVolume({ ...world.access(), takeover: true });
    await world.clock.sleep(world.limits.fenceCheckMs + world.limits.attemptMs);
    assert.equal(idle.parts.health.state, 'fenced');
    await next.detach();
  });
});

test('a volume that is given up asks no more', async () => {
  const world = new World();
  await world.run(async () => (await attached(world)).detach());
  while (world.clock.step());
  assert.equal(world.clock.sleeperCount, 0);
});
