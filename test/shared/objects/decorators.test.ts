import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ByteBudget } from '../../../shared/objects/budget.ts';
import { checkedStore } from '../../../shared/objects/checked.ts';
import { VirtualClock } from '../../../shared/objects/clock.ts';
import { FaultyStore } from '../../../shared/objects/fault.ts';
import { grantedStore } from '../../../shared/objects/grant.ts';
import { checkKey, checkPrefix, isKey } from '../../../shared/objects/key.ts';
import { limitedStore } from '../../../shared/objects/limit.ts';
import { createMemoryStore, MemoryObjects } from '../../../shared/objects/memory.ts';
import { observedStore, type StoreObservation } from '../../../shared/objects/observe.ts';
import { quotaStore, RECOUNT_PAUSE_MS } from '../../../shared/objects/quota.ts';
import type { ObjectStore } from '../../../shared/objects/store.ts';

const denied = { code: 'ERR_STORE_DENIED' };
const limit = { code: 'ERR_STORE_LIMIT' };
const unavailable = { code: 'ERR_STORE_UNAVAILABLE' };
const BYTE = Buffer.from('x');

describe('keys', () => {
  it('are segments of safe characters', () => {
    for (const key of ['a', 'a/b', 'A-Z_0.9+=@,!~/x', '...', '.a', 'a'.repeat(200)]) {
      checkKey(key);
      assert.ok(isKey(key));
    }
    for (const key of [
      '',
      '/',
      'a/',
      '/a',
      'a//b',
      '.',
      '..',
      'a/..',
      'a b',
      'a%b',
      'a*b',
      'a\n',
      'é',
      '\0',
    ]) {
      assert.throws(() => checkKey(key), denied, key);
      assert.ok(!isKey(key));
    }
    assert.throws(() => checkKey('a'.repeat(201)), limit);
    assert.throws(() => checkKey(Array(300).fill('a').join('/')), limit);
  });

  it('begin with prefixes', () => {
    for (const prefix of ['', 'a', 'a/', 'a/.', 'a/..', 'a/b-']) checkPrefix(prefix);
    for (const prefix of ['/', 'a//', '../', './a', 'a b'])
      assert.throws(() => checkPrefix(prefix), denied, prefix);
  });
});

describe('granted store', () => {
  it('lets keys of its prefixes through, each to its own store, and no others', async () => {
    const [one, two] = [new MemoryObjects(), new MemoryObjects()];
    const store = grantedStore([
      { prefix: 'a/', store: createMemoryStore(one) },
      { prefix: 'b/c/', store: createMemoryStore(two) },
    ]);
    await store.putIfAbsent('a/x', BYTE);
    await store.putIfAbsent('b/c/x', BYTE);
    assert.deepEqual([one.keys(), two.keys()], [['a/x'], ['b/c/x']]);
    for (const key of ['c/x', 'b/x', 'a', 'ab/x', 'b/c', 'b/cc/x']) {
      await assert.rejects(store.putIfAbsent(key, BYTE), denied, key);
      await assert.rejects(store.get(key), denied);
      await assert.rejects(store.head(key), denied);
      await assert.rejects(store.delete(key), denied);
      await assert.rejects(store.list(key), denied);
    }
    for (const prefix of ['', 'a', 'b/']) await assert.rejects(store.list(prefix), denied, prefix);
    await assert.rejects(store.get('a/../b/c/x'), denied);
    assert.equal((await store.list('a/')).objects.length, 1);
  });

  it('takes no grants that overlap', () => {
    const store = createMemoryStore();
    assert.throws(() => grantedStore([{ prefix: 'a', store }]), RangeError);
    const nested = [
      { prefix: 'a/', store },
      { prefix: 'a/b/', store },
    ];
    assert.throws(() => grantedStore(nested), RangeError);
  });
});

describe('quota', () => {
  it('counts what is there, what is put, and what was deleted', async () => {
    const clock = new VirtualClock();
    const objects = new MemoryObjects();
    for (let index = 0; index < 3; index += 1) objects.overwrite(`q/${index}`, Buffer.alloc(10));
    objects.overwrite('other', Buffer.alloc(1000));
    const store = quotaStore(createMemoryStore(objects), 'q/', { maxBytes: 50, maxObjects: 10 }, clock);
    assert.equal(await store.putIfAbsent('q/a', Buffer.alloc(20)), 'created');
    await assert.rejects(store.putIfAbsent('q/b', BYTE), limit);
    await store.delete('q/0');
    await assert.rejects(store.putIfAbsent('q/b', BYTE), limit);
    const later = clock.sleep(RECOUNT_PAUSE_MS);
    clock.step();
    await later;
    assert.equal(await store.putIfAbsent('q/b', Buffer.alloc(10)), 'created');
    await assert.rejects(store.putIfAbsent('q/c', BYTE), limit);
    assert.equal((await store.get('q/b'))?.length, 10);
  });

  it('counts objects too, and not what existed', async () => {
    const store = quotaStore(createMemoryStore(), 'q/', { maxBytes: 1000, maxObjects: 2 });
    assert.equal(await store.putIfAbsent('q/a', BYTE), 'created');
    for (let round = 0; round < 5; round += 1) assert.equal(await store.putIfAbsent('q/a', BYTE), 'exists');
    assert.equal(await store.putIfAbsent('q/b', BYTE), 'created');
    await assert.rejects(store.putIfAbsent('q/c', BYTE), limit);
  });

  it('holds against PUTs that race, and counts those in doubt', async () => {
    const objects = new MemoryObjects();
    const store = quotaStore(createMemoryStore(objects), 'q/', { maxBytes: 1000, maxObjects: 5 });
    const keys = Array.from({ length: 20 }, (_, index) => `q/${index}`);
    await Promise.allSettled(keys.map((key) => store.putIfAbsent(key, BYTE)));
    assert.equal(objects.keys().length, 5);
    const faulty = new FaultyStore(createMemoryStore(), { seed: 1, rates: { 'put-applied-error': 1 } });
    const doubtful = quotaStore(faulty, 'q/', { maxBytes: 2, maxObjects: 9 });
    for (const key of ['q/a', 'q/b']) {
      await assert.rejects(doubtful.putIfAbsent(key, BYTE), { code: 'ERR_STORE_AMBIGUOUS' });
    }
    await assert.rejects(doubtful.putIfAbsent('q/c', BYTE), limit);
  });

  it('refuses while it cannot count', async () => {
    const faulty = new FaultyStore(createMemoryStore(), { seed: 1, rates: {} });
    faulty.setUnreachable(Number.POSITIVE_INFINITY);
    const store = quotaStore(faulty, 'q/', { maxBytes: 1000, maxObjects: 5 });
    await assert.rejects(store.putIfAbsent('q/a', BYTE), unavailable);
    faulty.setUnreachable(0);
    assert.equal(await store.putIfAbsent('q/a', BYTE), 'created');
  });
});

describe('limited store', () => {
  it('lets so many in, keeps so many waiting, and refuses the rest', async () => {
    const gate = Promise.withResolvers<void>();
    let [inside, most] = [0, 0];
    const inner = createMemoryStore();
    const slow: ObjectStore = {
      ...inner,
      get: async (key) => {
        inside += 1;
        most = Math.max(most, inside);
        await gate.promise;
        inside -= 1;
        return inner.get(key);
      },
    };
    const store = limitedStore(slow, { concurrency: 2, waiting: 3 });
    const controller = new AbortController();
    const calls = [1, 2, 3, 4].map(() => store.get('a'));
    const given = store.get('a', { signal: controller.signal });
    await assert.rejects(store.get('a'), unavailable);
    controller.abort();
    await assert.rejects(given, unavailable);
    const next = store.get('a');
    gate.resolve();
    assert.deepEqual(await Promise.all([...calls, next]), Array(5).fill(undefined));
    assert.equal(most, 2);
  });

  it('keeps the place of a call that is aborted at the store until it is out', async () => {
    const gate = Promise.withResolvers<undefined>();
    let inside = 0;
    const stubborn: ObjectStore = {
      ...createMemoryStore(),
      get: async () => {
        inside += 1;
        await gate.promise;
        inside -= 1;
        return undefined;
      },
    };
    const store = limitedStore(stubborn, { concurrency: 1, waiting: 5 });
    const controller = new AbortController();
    const first = store.get('a', { signal: controller.signal });
    await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    const second = store.get('b');
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(inside, 1);
    gate.resolve(undefined);
    await Promise.all([first, second]);
  });
});

describe('byte budget', () => {
  it('admits in turn, gives back, and forgets who gave up', async () => {
    const budget = new ByteBudget(100, 3);
    await budget.acquire(80);
    const order: string[] = [];
    const controller = new AbortController();
    const large = budget.acquire(90, controller.signal).then(() => order.push('large'));
    const small = budget.acquire(10).then(() => order.push('small'));
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(order, []);
    controller.abort();
    await assert.rejects(large, unavailable);
    await small;
    assert.deepEqual(order, ['small']);
    assert.equal(budget.usedBytes, 90);
    const waiting = [budget.acquire(50), budget.acquire(50), budget.acquire(50)];
    assert.throws(() => budget.acquire(1), unavailable);
    budget.release(90);
    await Promise.all(waiting.slice(0, 2));
    budget.release(100);
    await waiting[2];
    assert.equal(budget.usedBytes, 50);
    assert.throws(() => budget.acquire(101), RangeError);
  });
});

describe('observed store', () => {
  it('tells what became of every call', async () => {
    const seen: StoreObservation[] = [];
    const store = observedStore(createMemoryStore(), (observation) => seen.push(observation));
    await store.putIfAbsent('a', Buffer.alloc(7));
    await store.putIfAbsent('a', Buffer.alloc(7));
    await store.get('a');
    await store.get('b');
    await store.delete('a');
    await store.list('');
    await assert.rejects(store.head('//'), denied);
    assert.deepEqual(
      seen.map(({ operation, outcome, sentBytes, receivedBytes }) => [
        operation,
        outcome,
        sentBytes,
        receivedBytes,
      ]),
      [
        ['put', 'ok', 7, 0],
        ['put', 'exists', 7, 0],
        ['get', 'ok', 0, 7],
        ['get', 'absent', 0, 0],
        ['delete', 'ok', 0, 0],
        ['list', 'ok', 0, 0],
        ['head', 'ERR_STORE_DENIED', 0, 0],
      ],
    );
  });
});

describe('faults', () => {
  function faulty(
    rates: ConstructorParameters<typeof FaultyStore>[1]['rates'],
    objects = new MemoryObjects(),
  ) {
    return { objects, store: new FaultyStore(createMemoryStore(objects), { seed: 3, rates, maxDelayMs: 1 }) };
  }

  it('do what they say: applied and denied, applied and lost, not applied', async () => {
    const exists = faulty({ 'put-applied-exists': 1 });
    assert.equal(await exists.store.putIfAbsent('a', BYTE), 'exists');
    assert.deepEqual(exists.objects.keys(), ['a']);
    const applied = faulty({ 'put-applied-error': 1 });
    await assert.rejects(applied.store.putIfAbsent('a', BYTE), { code: 'ERR_STORE_AMBIGUOUS' });
    assert.deepEqual(applied.objects.keys(), ['a']);
    for (const fault of ['put-conflict', 'put-error'] as const) {
      const failed = faulty({ [fault]: 1 });
      await assert.rejects(failed.store.putIfAbsent('a', BYTE), { code: 'ERR_STORE_AMBIGUOUS' });
      assert.deepEqual(failed.objects.keys(), []);
    }
  });

  it('a short read is caught by the checks above it', async () => {
    const { objects, store } = faulty({ 'get-short': 1 });
    objects.overwrite('a', Buffer.alloc(100));
    const checked = checkedStore(store);
    await assert.rejects(checked.get('a', { range: { offset: 0, length: 100 } }), {
      code: 'ERR_STORE_CORRUPT',
    });
  });

  it('a stale list misses what is new and shows what is gone, in order, and walks on', async () => {
    const { store } = faulty({ 'list-stale': 1 });
    const checked = checkedStore(store);
    for (let index = 0; index < 20; index += 1) await checked.putIfAbsent(`k/${index + 10}`, BYTE);
    for (let index = 0; index < 10; index += 1) await checked.delete(`k/${index * 2 + 10}`);
    const keys = (await checked.list('k/')).objects.map(({ key }) => key);
    assert.ok(keys.includes('k/10'));
    assert.ok(keys.length < 20);
    let after = '';
    for (;;) {
      const page = await checked.list('k/', { limit: 3, ...(after === '' ? {} : { after }) });
      if (!page.truncated) break;
      after = page.objects.at(-1)?.key ?? '';
    }
  });

  it('a lost delete is acknowledged and not done', async () => {
    const { objects, store } = faulty({ 'delete-lost': 1 });
    objects.overwrite('a', BYTE);
    await store.delete('a');
    assert.deepEqual(objects.keys(), ['a']);
  });

  it('can be switched off, and the store be out of reach', async () => {
    const { store } = faulty({ 'slow-down': 1 });
    await assert.rejects(store.get('a'), unavailable);
    store.setFaults(false);
    assert.equal(await store.get('a'), undefined);
    store.setUnreachable(Number.POSITIVE_INFINITY);
    await assert.rejects(store.get('a'), unavailable);
  });
});
