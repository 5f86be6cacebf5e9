import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isPosternError } from '../../../shared/errors.ts';
import { checkedStore } from '../../../shared/objects/checked.ts';
import { claimObject } from '../../../shared/objects/claim.ts';
import { VirtualClock } from '../../../shared/objects/clock.ts';
import { type Fault, FaultyStore } from '../../../shared/objects/fault.ts';
import { createMemoryStore, MemoryObjects } from '../../../shared/objects/memory.ts';
import { seededRandom } from '../../../shared/objects/random.ts';
import { RETRY_DEADLINE_MS, retryingStore } from '../../../shared/objects/retry.ts';
import type { ObjectStore } from '../../../shared/objects/store.ts';

const SEED = Number(process.env['SEED'] ?? Date.now() & 0x7fffffff);
const ROUNDS = process.env['SLOW'] === '1' ? 2000 : 100;
const HOUR_MS = 3_600_000;

function simulated(rates: { [fault in Fault]?: number }, seed = SEED) {
  const clock = new VirtualClock();
  const objects = new MemoryObjects();
  const faulty = new FaultyStore(createMemoryStore(objects), { seed, rates, clock });
  const store = retryingStore(checkedStore(faulty), { clock, random: seededRandom(seed + 1) });
  return { clock, objects, faulty, store };
}

describe('retrying store', () => {
  it('waits out a store that is away, and gives up at its deadline', async () => {
    const { clock, faulty, store } = simulated({});
    faulty.setUnreachable(10_000);
    assert.equal(await clock.run(store.putIfAbsent('a', Buffer.from('1'))), 'created');
    assert.ok(clock.nowMs() >= 10_000 && clock.nowMs() < 13_000);
    faulty.setUnreachable(HOUR_MS);
    const startMs = clock.nowMs();
    await assert.rejects(clock.run(store.get('a')), { code: 'ERR_STORE_UNAVAILABLE' });
    const tookMs = clock.nowMs() - startMs;
    assert.ok(tookMs <= RETRY_DEADLINE_MS && tookMs > RETRY_DEADLINE_MS - 3000, `${tookMs}`);
    await assert.rejects(clock.run(store.putIfAbsent('b', Buffer.from('1'))), {
      code: 'ERR_STORE_UNAVAILABLE',
    });
  });

  it('hours out of reach in virtual time end in the same store, with nothing lost', async () => {
    const { clock, faulty, store, objects } = simulated({});
    faulty.setUnreachable(6 * HOUR_MS);
    let failures = 0;
    for (;;) {
      try {
        assert.equal(await clock.run(store.putIfAbsent('a', Buffer.from('x'))), 'created');
        break;
      } catch (error) {
        assert.ok(isPosternError(error, 'ERR_STORE_UNAVAILABLE'));
        failures += 1;
      }
    }
    assert.ok(failures > 700, `${failures}`);
    assert.deepEqual(objects.keys(), ['a']);
  });

  it('a PUT in doubt to the end is ambiguous, also when the last attempt was not', async () => {
    const { clock, faulty, store } = simulated({ 'put-error': 1 });
    await assert.rejects(clock.run(store.putIfAbsent('a', Buffer.from('x'))), {
      code: 'ERR_STORE_AMBIGUOUS',
    });
    const put = store.putIfAbsent('b', Buffer.from('x'));
    faulty.setUnreachable(HOUR_MS);
    await assert.rejects(clock.run(put), { code: 'ERR_STORE_AMBIGUOUS' });
  });

  it('its own object is created, another’s exists, whatever was lost on the way', async () => {
    for (const fault of [
      'put-applied-error',
      'put-conflict',
      'put-error',
      'put-late',
      'slow-down',
    ] as const) {
      const { clock, store, objects } = simulated({ [fault]: 0.4 });
      assert.equal(
        await clock.run(store.putIfAbsent('a', Buffer.from('mine'))),
        'created',
        `${fault} SEED=${SEED}`,
      );
      objects.overwrite('b', Buffer.from('hers'));
      assert.equal(
        await clock.run(store.putIfAbsent('b', Buffer.from('mine'))),
        'exists',
        `${fault} SEED=${SEED}`,
      );
      assert.equal(String(objects.peek('b')), 'hers');
    }
  });

  it('leaves what is final alone', async () => {
    let callCount = 0;
    const inner = createMemoryStore();
    const counted: ObjectStore = {
      ...inner,
      get: (key, options) => {
        callCount += 1;
        return inner.get(key, options);
      },
    };
    const { clock } = simulated({});
    const store = retryingStore(counted, { clock });
    await store.putIfAbsent('a', Buffer.from('x'));
    await assert.rejects(clock.run(store.get('a', { range: { offset: 0, length: 2 } })), {
      code: 'ERR_STORE_CORRUPT',
    });
    await assert.rejects(clock.run(store.get('a//b')), { code: 'ERR_STORE_DENIED' });
    assert.equal(callCount, 2);
  });

  it('ends an attempt that hangs, and a caller that gives up', async () => {
    const clock = new VirtualClock();
    let attemptCount = 0;
    const hanging: ObjectStore = {
      ...createMemoryStore(),
      get: (_, options) => {
        attemptCount += 1;
        return new Promise((_resolve, reject) => {
          options?.signal?.addEventListener('abort', () => reject(options.signal?.reason));
        });
      },
    };
    const store = retryingStore(hanging, { clock });
    await assert.rejects(clock.run(store.get('a')), { code: 'ERR_STORE_UNAVAILABLE' });
    assert.equal(attemptCount, 3);
    const { clock: other, faulty, store: retrying } = simulated({});
    faulty.setUnreachable(HOUR_MS);
    const controller = new AbortController();
    const given = retrying.get('a', { signal: controller.signal });
    setImmediate(() => controller.abort());
    await assert.rejects(other.run(given), { code: 'ERR_STORE_UNAVAILABLE' });
    assert.ok(other.nowMs() < 1000);
  });

  it(`racing writers over every fault: one winner a key, and everybody knows (SEED=${SEED})`, async () => {
    const rates = {
      'put-conflict': 0.15,
      'put-applied-exists': 0.1,
      'put-applied-error': 0.15,
      'put-error': 0.15,
      'put-late': 0.1,
      'get-cut': 0.15,
      'slow-down': 0.15,
      delay: 0.3,
    };
    for (let round = 0; round < ROUNDS; round += 1) {
      const { clock, objects, store } = simulated(rates, SEED + round);
      const bodies = Array.from({ length: 5 }, (_, index) => Buffer.from(`writer ${index}`));
      const answers = await clock.run(Promise.all(bodies.map((body) => claimObject(store, 'k', body))));
      const held = String(objects.peek('k'));
      for (const [index, answer] of answers.entries()) {
        assert.equal(answer, held === `writer ${index}` ? 'stored' : 'taken', `SEED=${SEED} round ${round}`);
      }
    }
  });

  it('the same seed is the same history', async () => {
    const history = async (): Promise<string> => {
      const faults: string[] = [];
      const clock = new VirtualClock();
      const rates = {
        'put-applied-error': 0.3,
        'slow-down': 0.3,
        delay: 0.5,
        'list-stale': 0.5,
        'delete-lost': 0.3,
      };
      const onFault = (fault: Fault, { key }: { key: string }) =>
        faults.push(`${clock.nowMs()} ${fault} ${key}`);
      const faulty = new FaultyStore(createMemoryStore(), { seed: 7, rates, clock, onFault });
      const store = retryingStore(faulty, { clock, random: seededRandom(8) });
      const work = async (name: string): Promise<void> => {
        for (let index = 0; index < 20; index += 1) {
          await store.putIfAbsent(`${name}/${index}`, Buffer.from(name));
          if (index % 3 === 0) await store.delete(`${name}/${index}`);
          faults.push(JSON.stringify(await store.list(`${name}/`)));
        }
      };
      await clock.run(Promise.all([work('a'), work('b'), work('c')]));
      return faults.join('\n');
    };
    assert.equal(await history(), await history());
  });
});
