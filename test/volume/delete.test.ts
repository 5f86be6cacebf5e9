import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { attachVolume } from '../../guest/volume/attach.ts';
import { checkVolume } from '../../guest/volume/check.ts';
import { createVolume, type VolumeAccess } from '../../guest/volume/create.ts';
import type { Volume } from '../../guest/volume/engine.ts';
import { inspectVolume } from '../../guest/volume/inspect.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { rekey } from '../../guest/volume/rekey.ts';
import { remove } from '../../guest/volume/remove.ts';
import { createSnapshot } from '../../guest/volume/snapshot.ts';
import { type ErrorCode, isPosternError, PosternError } from '../../shared/errors.ts';
import { wrapStore } from '../../shared/objects/around.ts';
import { createMemoryStore } from '../../shared/objects/memory.ts';
import { seededRandom } from '../../shared/objects/random.ts';
import { SimulatedProcess } from './simulated/process.ts';
import { World } from './world.ts';

const SIZE = 16 * 1024 * 1024;
const NO = { fua: false };
const BLOCKS = 20;
const ROUNDS = process.env['SLOW'] === '1' ? 2000 : 150;

const block = (text: string): Buffer => Buffer.alloc(BLOCK_BYTES, text);
const old = (at: number): Buffer => block(`old ${at} `);
const NEW = block('new ');

function deletion(access: VolumeAccess, takeover = false) {
  const options = { config: '', yes: true, takeover };
  const rest = { argument: '', mode: undefined, progress: () => undefined, agentSocket: undefined };
  return remove({ access, options, ...rest });
}

/** A detached volume with blocks under two generations of keys, kept by a snapshot. */
async function detachedVolume(world: World): Promise<void> {
  await createVolume(world.creation(SIZE));
  const volume = await attachVolume(world.access());
  for (let at = 0; at < BLOCKS; at += 1) await volume.write(at * BLOCK_BYTES, old(at), NO);
  await createSnapshot(volume, 'kept');
  await rekey(volume);
  await volume.write(0, old(0), NO);
  await volume.detach();
}

/** An agent that attaches the volume, uses it and keeps it. */
class Agent {
  #volume: Volume | undefined;

  async attach(access: VolumeAccess, takeover: boolean): Promise<void> {
    this.#volume = await attachVolume({ ...access, takeover });
    await this.#use(this.#volume);
  }

  /** Goes on with the volume that it has: what it writes is acknowledged when this resolves. */
  async finish(): Promise<void> {
    if (this.#volume === undefined)
      throw new PosternError('ERR_VOLUME_CLOSED', 'it never attached the volume');
    try {
      await this.#use(this.#volume);
    } finally {
      this.#volume.close();
    }
  }

  async #use(volume: Volume): Promise<void> {
    for (let at = 1; at < BLOCKS; at += 1) {
      assert.ok((await volume.read(at * BLOCK_BYTES, BLOCK_BYTES)).equals(old(at)));
    }
    await volume.write(0, NEW, NO);
    await volume.flush();
  }
}

async function attachAndDetach(access: VolumeAccess, takeover: boolean): Promise<void> {
  const volume = await attachVolume({ ...access, takeover });
  for (let at = 0; at < BLOCKS; at += 1) {
    assert.ok((await volume.read(at * BLOCK_BYTES, BLOCK_BYTES)).equals(old(at)));
  }
  await volume.detach();
}

/** How it ended: `done`, or the code of what it failed with. Everything else is a bug. */
async function outcome(work: Promise<unknown>): Promise<ErrorCode | 'done'> {
  try {
    await work;
    return 'done';
  } catch (error) {
    if (!isPosternError(error)) throw error;
    return error.code;
  }
}

/** One of the two has won: the volume is the agent's and whole, or gone; never anything in between. */
async function assertSettled(world: World, agent: Agent, removal: string, context: string): Promise<boolean> {
  const attach = await outcome(agent.finish());
  const text = `${context}: agent ${attach}, delete ${removal}`;
  assert.notEqual(attach === 'done', removal === 'done', text);
  if (removal === 'done') {
    const kept = world.objects.keys().filter((key) => key === 'vol/hdr' || key.startsWith('vol/k/'));
    assert.deepEqual(kept, [], text);
    assert.equal(
      await outcome(attachVolume({ ...world.access(), takeover: true })),
      'ERR_VOLUME_NOT_FOUND',
      text,
    );
    // The claim or the commit of an attach that lost may have come after the deletion's LIST.
    await outcome(deletion(world.access()));
    assert.deepEqual(world.objects.keys(), [], text);
    return false;
  }
  const volume = await attachVolume({ ...world.access(), takeover: true });
  assert.ok((await volume.read(0, BLOCK_BYTES)).equals(NEW), text);
  for (let at = 1; at < BLOCKS; at += 1) {
    assert.ok((await volume.read(at * BLOCK_BYTES, BLOCK_BYTES)).equals(old(at)), text);
  }
  await volume.detach();
  assert.deepEqual((await checkVolume(await inspectVolume(world.access()))).problems, [], text);
  return true;
}

/** Stops before and after each call to the store and the anchor, and lets `meanwhile` happen at one of these moments. */
function stepped(world: World, stopAt: number, meanwhile: () => Promise<void>) {
  let moments = 0;
  let isOver = false;
  let stop: Promise<void> | undefined;
  const moment = async (): Promise<void> => {
    if (isOver) return;
    moments += 1;
    if (moments !== stopAt) return;
    stop = meanwhile();
    await stop;
  };
  /** Says whether it came to the stop. What goes on in the background has no moments any more. */
  const end = async (): Promise<boolean> => {
    isOver = true;
    await stop;
    return stop !== undefined;
  };
  const around = async <T>(work: () => Promise<T>): Promise<T> => {
    await moment();
    const answer = await work();
    await moment();
    return answer;
  };
  const { anchor } = world;
  const access: VolumeAccess = {
    ...world.access(),
    store: wrapStore(world.store, (_call, run) => around(() => run(undefined))),
    anchor: {
      capabilities: anchor.capabilities,
      create: (...args) => around(() => anchor.create(...args)),
      read: (...args) => around(() => anchor.read(...args)),
      advance: (...args) => around(() => anchor.advance(...args)),
    },
  };
  return { access, end };
}

/** `run` with the stop one moment later each time, until there is none to come to. */
async function atEachStep(
  t: TestContext,
  run: (world: World, agent: Agent, stopAt: number) => Promise<{ removal: string; isOver: boolean }>,
): Promise<{ stopAt: number; kept: number }> {
  let [stopAt, kept] = [1, 0];
  for (let isOver = false; !isOver; stopAt += 1) {
    const world = new World(stopAt);
    const agent = new Agent();
    await world.run(async () => {
      await detachedVolume(world);
      const ran = await run(world, agent, stopAt);
      isOver = ran.isOver;
      if (await assertSettled(world, agent, ran.removal, `step ${stopAt}`)) kept += 1;
    });
  }
  t.diagnostic(`${stopAt} steps, the agent kept the volume at ${kept}`);
  return { stopAt, kept };
}

describe('a deletion and an attach of a detached volume at one moment', () => {
  for (const takeover of [false, true]) {
    const how = takeover ? 'both with takeover' : 'neither with takeover';
    test(`an attach at every step of a deletion, ${how}`, async (t) => {
      const { stopAt, kept } = await atEachStep(t, async (world, agent, at) => {
        const { access, end } = stepped(world, at, async () => {
          await outcome(agent.attach(world.access(), takeover));
        });
        const removal = await outcome(deletion(access, takeover));
        return { removal, isOver: !(await end()) };
      });
      assert.ok(kept > 0 && kept < stopAt - 2);
    });

    test(`a deletion at every step of an attach, ${how}`, async (t) => {
      const { stopAt, kept } = await atEachStep(t, async (world, agent, at) => {
        let removal = 'never';
        const { access, end } = stepped(world, at, async () => {
          removal = await outcome(deletion(world.access(), takeover));
        });
        await outcome(agent.attach(access, takeover));
        const isOver = !(await end());
        return { removal, isOver };
      });
      // Who takes over does so at any moment: but for the last, at which there was no deletion.
      assert.ok(takeover ? kept === 1 : kept > 1 && kept < stopAt - 2);
    });
  }

  test('whatever the order of their steps, one wins and the other changes nothing', async (t) => {
    let kept = 0;
    for (let seed = 1; seed <= ROUNDS; seed += 1) {
      const world = new World(seed);
      const random = seededRandom(seed);
      const agent = new Agent();
      const slow = (): VolumeAccess => {
        const life = { endsAt: Number.POSITIVE_INFINITY, latencyMs: random() * 40 };
        const { store, anchor } = new SimulatedProcess(world.store, world.anchor, world.clock, random, life);
        return { ...world.access(), store, anchor };
      };
      await world.run(async () => {
        await detachedVolume(world);
        const takeover = random() < 0.5;
        const [, removal] = await Promise.all([
          world.clock.sleep(random() * 100).then(() => outcome(agent.attach(slow(), takeover))),
          world.clock.sleep(random() * 100).then(() => outcome(deletion(slow(), takeover))),
        ]);
        if (await assertSettled(world, agent, removal, `seed ${seed}`)) kept += 1;
      });
    }
    t.diagnostic(`of ${ROUNDS} seeds the agent kept the volume in ${kept}`);
    assert.ok(kept > 0 && kept < ROUNDS);
  });
});

test('a deletion that is interrupted at any step leaves a whole volume or one that only it can go on with', async (t) => {
  const found: Record<string, number> = {};
  let endsAt = 1;
  for (let isOver = false; !isOver; endsAt += 1) {
    const world = new World(endsAt);
    const random = seededRandom(endsAt);
    const dying = new SimulatedProcess(world.store, world.anchor, world.clock, random, {
      endsAt,
      latencyMs: 20,
    });
    await world.run(async () => {
      await detachedVolume(world);
      const done = deletion({ ...world.access(), store: dying.store, anchor: dying.anchor });
      isOver = (await Promise.race([done, dying.ended])) !== undefined;
      // What was on the wire when it died arrives.
      await world.clock.sleep(1000);
      const attach = await outcome(attachAndDetach(world.access(), false));
      found[attach] = (found[attach] ?? 0) + 1;
      const known = ['done', 'ERR_VOLUME_DELETED', 'ERR_VOLUME_NOT_FOUND'];
      assert.ok(known.includes(attach), `ended at ${endsAt}: ${attach}`);
      if (attach !== 'done') {
        // Not even who takes over from anybody.
        assert.equal(await outcome(attachAndDetach(world.access(), true)), attach, `ended at ${endsAt}`);
      }
      const again = await outcome(deletion(world.access()));
      if (attach !== 'ERR_VOLUME_NOT_FOUND') assert.equal(again, 'done', `ended at ${endsAt}`);
      assert.deepEqual(world.objects.keys(), [], `ended at ${endsAt}`);
    });
  }
  t.diagnostic(`${endsAt} steps: ${JSON.stringify(found)}`);
  assert.deepEqual(Object.keys(found).sort(), ['ERR_VOLUME_DELETED', 'ERR_VOLUME_NOT_FOUND', 'done'].sort());
});

test('a store that is full keeps no volume from being deleted by who says so', async () => {
  const world = new World();
  await world.run(async () => {
    await detachedVolume(world);
    const before = world.objects.keys();
    world.store = wrapStore(createMemoryStore(world.objects), (call, run) => {
      if (call.operation === 'put') throw new PosternError('ERR_STORE_LIMIT', 'the quota is used up');
      return run(call.signal);
    });
    await assert.rejects(deletion(world.access()), { code: 'ERR_VOLUME_IN_USE', message: /--takeover/ });
    assert.deepEqual(world.objects.keys(), before);
    await deletion(world.access(), true);
    assert.deepEqual(world.objects.keys(), []);
  });
});

test('what an object in the store says of a deletion is not believed of a volume that opens', async () => {
  const world = new World();
  await world.run(async () => {
    await detachedVolume(world);
    const header = world.objects.peek('vol/hdr') ?? Buffer.alloc(0);
    world.objects.overwrite(`vol/d/${header.subarray(16, 32).toString('hex')}`, Buffer.from('forged'));
    const volume = await attachVolume(world.access());
    await assert.rejects(deletion(world.access()), { code: 'ERR_VOLUME_IN_USE' });
    await volume.detach();
  });
});
