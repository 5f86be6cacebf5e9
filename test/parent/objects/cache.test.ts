import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { cachedStore } from '../../../parent/objects/cache.ts';
import { createMemoryStore, MemoryObjects } from '../../../shared/objects/memory.ts';
import { OBJECT_MAX_BYTES, type ObjectStore } from '../../../shared/objects/store.ts';
import { objectStoreConformance, pattern } from '../../conformance/object-store.ts';

const folders: string[] = [];
async function newFolder(): Promise<string> {
  const folder = await mkdtemp(`${tmpdir()}/postern-cache-`);
  folders.push(folder);
  return folder;
}
after(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true }))));

async function filesOf(folder: string, wanted: number): Promise<string[]> {
  for (;;) {
    const names = (await readdir(folder)).filter((name) => !name.endsWith('.new'));
    if (names.length === wanted) return names;
    await sleep(5);
  }
}

objectStoreConformance('memory, cached', async () => ({
  store: await cachedStore(createMemoryStore(), { path: await newFolder(), maxBytes: OBJECT_MAX_BYTES }),
}));

describe('cache of objects', () => {
  async function open(maxBytes = OBJECT_MAX_BYTES) {
    const path = await newFolder();
    const objects = new MemoryObjects();
    let getCount = 0;
    const memory = createMemoryStore(objects);
    const counted: ObjectStore = {
      ...memory,
      get: (key, options) => {
        getCount += 1;
        return memory.get(key, options);
      },
    };
    const store = await cachedStore(counted, { path, maxBytes });
    return { path, objects, store, gets: () => getCount };
  }

  it('answers whole and range reads of what was written without the store', async () => {
    const { path, store, gets } = await open();
    const bytes = pattern(100_000, 1);
    await store.putIfAbsent('v/a', bytes);
    await filesOf(path, 1);
    assert.ok((await store.get('v/a'))?.equals(bytes));
    assert.ok((await store.get('v/a', { range: { offset: 5, length: 10 } }))?.equals(bytes.subarray(5, 15)));
    assert.equal(gets(), 0);
  });

  it('stays below its bound, and keeps what was used last', async () => {
    const { path, store, gets } = await open();
    const bytes = pattern(6 * 1024 * 1024, 2);
    await store.putIfAbsent('v/a', bytes);
    await filesOf(path, 1);
    await store.putIfAbsent('v/b', bytes);
    await filesOf(path, 2);
    await store.get('v/a', { range: { offset: 0, length: 1 } });
    await store.putIfAbsent('v/c', bytes);
    while (!(await filesOf(path, 2)).includes(createHash('sha256').update('v/c').digest('hex')));
    await store.get('v/a', { range: { offset: 0, length: 1 } });
    await store.get('v/c', { range: { offset: 0, length: 1 } });
    assert.equal(gets(), 0);
    await store.get('v/b', { range: { offset: 0, length: 1 } });
    assert.equal(gets(), 1);
  });

  it('forgets what is deleted, and reads from the store what its disk lost', async () => {
    const { path, store, gets } = await open();
    await store.putIfAbsent('v/a', pattern(1000, 1));
    const [name] = await filesOf(path, 1);
    await truncate(`${path}/${name}`, 10);
    assert.ok((await store.get('v/a'))?.equals(pattern(1000, 1)));
    assert.equal(gets(), 1);
    await filesOf(path, 1);
    await store.delete('v/a');
    assert.equal(await store.get('v/a'), undefined);
    assert.deepEqual(await readdir(path), []);
  });

  it('begins empty, and touches no folder with other files', async () => {
    const { path, store } = await open();
    await store.putIfAbsent('v/a', Buffer.from('x'));
    await filesOf(path, 1);
    await cachedStore(createMemoryStore(), { path, maxBytes: OBJECT_MAX_BYTES });
    assert.deepEqual(await readdir(path), []);
    await writeFile(`${path}/thesis.txt`, 'mine');
    await assert.rejects(cachedStore(createMemoryStore(), { path, maxBytes: OBJECT_MAX_BYTES }), {
      code: 'ERR_STORE_UNSUITABLE',
    });
    assert.deepEqual(await readdir(path), ['thesis.txt']);
  });
});
