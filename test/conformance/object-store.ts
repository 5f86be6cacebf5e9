import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { isPosternError } from '../../shared/errors.ts';
import { claimObject } from '../../shared/objects/claim.ts';
import { listAll } from '../../shared/objects/list-all.ts';
import { OBJECT_MAX_BYTES, type ObjectStore } from '../../shared/objects/store.ts';

export interface StoreUnderTest {
  readonly store: ObjectStore;
  /** Keys of the suite begin with it; a store that grants nothing has ''. */
  readonly prefix?: string;
  close?(): Promise<void>;
}

/** Every store and every decorated form of one behaves like this. `open` gives an empty store. */
export function objectStoreConformance(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`object store: ${name}`, () => {
    let subject: StoreUnderTest;
    let store: ObjectStore;
    let p = '';
    before(async () => {
      subject = await open();
      store = subject.store;
      p = subject.prefix ?? '';
    });
    after(() => subject?.close?.());

    it('puts once, and keeps the first bytes', async () => {
      assert.equal(await store.putIfAbsent(`${p}once/a`, Buffer.from('first')), 'created');
      assert.equal(await store.putIfAbsent(`${p}once/a`, Buffer.from('second')), 'exists');
      assert.equal(await store.putIfAbsent(`${p}once/a`, Buffer.from('first')), 'exists');
      assert.equal(String(await store.get(`${p}once/a`)), 'first');
      assert.deepEqual(await store.head(`${p}once/a`), { sizeBytes: 5 });
    });

    it('says of what is not there that it is not there', async () => {
      assert.equal(await store.get(`${p}none/a`), undefined);
      assert.equal(await store.get(`${p}none/a`, { range: { offset: 5, length: 3 } }), undefined);
      assert.equal(await store.head(`${p}none/a`), undefined);
      assert.deepEqual(await store.list(`${p}none/`), { objects: [], truncated: false });
      await store.delete(`${p}none/a`);
    });

    it('reads ranges exactly, and refuses one behind the end', async () => {
      const bytes = pattern(100_000, 1);
      await store.putIfAbsent(`${p}range/a`, bytes);
      for (const [offset, length] of [
        [0, 1],
        [0, 100_000],
        [99_999, 1],
        [4096, 65_536],
        [31, 31_744],
      ] as const) {
        const part = await store.get(`${p}range/a`, { range: { offset, length } });
        assert.ok(part?.equals(bytes.subarray(offset, offset + length)), `${length} at ${offset}`);
      }
      for (const [offset, length] of [
        [0, 100_001],
        [99_999, 2],
        [100_000, 1],
        [5_000_000, 9],
      ] as const) {
        await rejects(store.get(`${p}range/a`, { range: { offset, length } }), 'ERR_STORE_CORRUPT');
      }
    });

    it('keeps an empty object', async () => {
      assert.equal(await store.putIfAbsent(`${p}empty/a`, Buffer.alloc(0)), 'created');
      assert.equal((await store.get(`${p}empty/a`))?.length, 0);
      assert.deepEqual(await store.head(`${p}empty/a`), { sizeBytes: 0 });
      assert.equal(await store.putIfAbsent(`${p}empty/a`, Buffer.from('x')), 'exists');
    });

    it('keeps an object of the largest size, and refuses one more byte', async () => {
      const bytes = pattern(OBJECT_MAX_BYTES, 7);
      assert.equal(await store.putIfAbsent(`${p}large/a`, bytes), 'created');
      assert.equal(sha256(await store.get(`${p}large/a`)), sha256(bytes));
      await rejects(store.putIfAbsent(`${p}large/b`, Buffer.alloc(OBJECT_MAX_BYTES + 1)), 'ERR_STORE_LIMIT');
      assert.equal(await store.head(`${p}large/b`), undefined);
      await store.delete(`${p}large/a`);
    });

    it('deletes, and may then be put anew', async () => {
      await store.putIfAbsent(`${p}gone/a`, Buffer.from('1'));
      await store.delete(`${p}gone/a`);
      assert.equal(await store.get(`${p}gone/a`), undefined);
      assert.equal(await store.head(`${p}gone/a`), undefined);
      assert.deepEqual((await store.list(`${p}gone/`)).objects, []);
      assert.equal(await store.putIfAbsent(`${p}gone/a`, Buffer.from('2')), 'created');
      assert.equal(String(await store.get(`${p}gone/a`)), '2');
    });

    it('lists in byte order of keys, by prefixes that need not end at a slash', async () => {
      const keys = [
        'l/a',
        'l/a-b',
        'l/a/b',
        'l/a/b/c',
        'l/a0',
        'l/A',
        'l/~z',
        'l/!x',
        'l/a.b',
        'l/b/x',
        'l/b_',
      ];
      for (const [index, key] of keys.entries()) await store.putIfAbsent(p + key, Buffer.alloc(index));
      await store.putIfAbsent(`${p}l0`, Buffer.alloc(1));
      const sorted = keys.map((key) => p + key).sort();
      const all = await store.list(`${p}l/`);
      assert.deepEqual(
        all.objects.map(({ key }) => key),
        sorted,
      );
      assert.equal(all.truncated, false);
      for (const { key, sizeBytes } of all.objects)
        assert.equal(sizeBytes, keys.indexOf(key.slice(p.length)));
      for (const prefix of ['l/a', 'l/a/', 'l/a/b', 'l/b', 'l/.', 'l/a-bc']) {
        const found = (await store.list(p + prefix)).objects.map(({ key }) => key);
        assert.deepEqual(
          found,
          sorted.filter((key) => key.startsWith(p + prefix)),
          prefix,
        );
      }
    });

    it('keeps an object apart from the objects below its name, and case apart', async () => {
      await store.putIfAbsent(`${p}n/x`, Buffer.from('x'));
      await store.putIfAbsent(`${p}n/x/y`, Buffer.from('xy'));
      await store.putIfAbsent(`${p}n/X`, Buffer.from('X'));
      assert.equal(String(await store.get(`${p}n/x`)), 'x');
      assert.equal(String(await store.get(`${p}n/x/y`)), 'xy');
      assert.equal(String(await store.get(`${p}n/X`)), 'X');
      assert.equal(await store.get(`${p}n`), undefined);
      await store.delete(`${p}n/x`);
      assert.equal(String(await store.get(`${p}n/x/y`)), 'xy');
    });

    it('pages through a listing, from any key', async () => {
      const keys = Array.from({ length: 25 }, (_, index) => `${p}page/${String(index).padStart(3, '0')}/k`);
      await Promise.all(keys.map((key) => store.putIfAbsent(key, Buffer.from('p'))));
      const first = await store.list(`${p}page/`, { limit: 10 });
      assert.deepEqual(
        first.objects.map(({ key }) => key),
        keys.slice(0, 10),
      );
      assert.equal(first.truncated, true);
      const last = await store.list(`${p}page/`, { limit: 10, after: keys[14] ?? '' });
      assert.deepEqual(
        last.objects.map(({ key }) => key),
        keys.slice(15),
      );
      assert.equal(last.truncated, false);
      const between = await store.list(`${p}page/`, { after: `${p}page/010/z` });
      assert.equal(between.objects[0]?.key, keys[11]);
      assert.deepEqual((await store.list(`${p}page/`, { after: `${p}zzz` })).objects, []);
      const walked: string[] = [];
      for await (const { key } of listAll(store, `${p}page/`, { maxKeys: 25 })) walked.push(key);
      assert.deepEqual(walked, keys);
      await rejects(drain(listAll(store, `${p}page/`, { maxKeys: 24 })), 'ERR_STORE_LIMIT');
    });

    it('lets exactly one of 16 racing PUTs win, and keeps its bytes', async () => {
      for (let round = 0; round < 4; round += 1) {
        const key = `${p}race/${round}`;
        const bodies = Array.from({ length: 16 }, (_, index) => pattern(2000 + index, index));
        const answers = await Promise.all(bodies.map((body) => answerOf(store, key, body)));
        assert.deepEqual(answers.filter((answer) => answer === 'stored').length, 1, answers.join(' '));
        const winner = bodies[answers.indexOf('stored')];
        assert.ok(winner && (await store.get(key))?.equals(winner));
      }
    });

    it('refuses keys and ranges that are none, and touches nothing', async () => {
      for (const key of [
        '',
        '/',
        'a/',
        '/a',
        'a//b',
        '.',
        '..',
        'a/../b',
        'a/./b',
        'ü',
        'a b',
        'a%2fb',
        'a\\b',
        'a\0b',
      ]) {
        await rejects(store.putIfAbsent(p + key, Buffer.from('x')), 'ERR_STORE_DENIED');
        await rejects(store.get(p + key), 'ERR_STORE_DENIED');
        await rejects(store.head(p + key), 'ERR_STORE_DENIED');
        await rejects(store.delete(p + key), 'ERR_STORE_DENIED');
      }
      await rejects(store.putIfAbsent(`${p}${'a'.repeat(600)}`, Buffer.from('x')), 'ERR_STORE_LIMIT');
      await rejects(store.get(`${p}${'a'.repeat(201)}`), 'ERR_STORE_LIMIT');
      await rejects(store.list(`${p}../`), 'ERR_STORE_DENIED');
      await rejects(store.list(p, { limit: 1001 }), 'ERR_STORE_LIMIT');
      for (const range of [
        [-1, 1],
        [0, 0],
        [0, OBJECT_MAX_BYTES + 1],
        [0.5, 1],
      ] as const) {
        const [offset, length] = range;
        await rejects(store.get(`${p}once/a`, { range: { offset, length } }), 'ERR_STORE_LIMIT');
      }
    });

    it('does nothing for a caller that has given up', async () => {
      const signal = AbortSignal.abort();
      await rejects(store.putIfAbsent(`${p}abort/a`, Buffer.from('x'), { signal }), 'ERR_STORE_UNAVAILABLE');
      await rejects(store.get(`${p}once/a`, { signal }), 'ERR_STORE_UNAVAILABLE');
      assert.equal(await store.head(`${p}abort/a`), undefined);
    });

    it('answers a caller that gives up on the way, and goes on', async () => {
      const key = `${p}abort/b`;
      const controller = new AbortController();
      const put = store.putIfAbsent(key, pattern(4_000_000, 3), { signal: controller.signal });
      setImmediate(() => controller.abort());
      const answer = await put.catch((error: unknown) => error);
      const fine = answer === 'created' || isPosternError(answer, 'ERR_STORE_AMBIGUOUS');
      assert.ok(fine || isPosternError(answer, 'ERR_STORE_UNAVAILABLE'), String(answer));
      assert.equal(await claimObject(store, `${p}abort/c`, Buffer.from('c')), 'stored');
    });

    it('serves many at once, each its own', async () => {
      const keys = Array.from({ length: 40 }, (_, index) => `${p}many/${index}`);
      await Promise.all(keys.map((key, index) => store.putIfAbsent(key, pattern(50_000 + index, index))));
      const found = await Promise.all(keys.map((key) => store.get(key)));
      for (const [index, bytes] of found.entries()) assert.ok(bytes?.equals(pattern(50_000 + index, index)));
    });

    it('gives buffers that the caller owns', async () => {
      const bytes = Buffer.from('mine');
      await store.putIfAbsent(`${p}own/a`, bytes);
      bytes.fill(0);
      const first = await store.get(`${p}own/a`);
      assert.equal(String(first), 'mine');
      first?.fill(0);
      assert.equal(String(await store.get(`${p}own/a`)), 'mine');
    });
  });
}

async function answerOf(store: ObjectStore, key: string, body: Buffer): Promise<string> {
  // A store may answer 409 to a race, which leaves the question open: settle it as every caller does.
  return claimObject(store, key, body);
}

async function drain(walk: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of walk);
}

async function rejects(work: Promise<unknown>, code: string): Promise<void> {
  await assert.rejects(work, (error) => {
    assert.ok(isPosternError(error), String(error));
    assert.equal(error.code, code, error.message);
    return true;
  });
}

/** Bytes that differ from one another by place and seed. */
export function pattern(sizeBytes: number, seed: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (let index = 0; index < sizeBytes; index += 1)
    bytes[index] = (index * 31 + (index >> 8) * 17 + seed * 101) & 0xff;
  return bytes;
}

function sha256(bytes: Buffer | undefined): string {
  return createHash('sha256')
    .update(bytes ?? '')
    .digest('hex');
}
