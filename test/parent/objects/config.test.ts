import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after, describe, it } from 'node:test';
import * as v from 'valibot';
import {
  findObjectConflicts,
  grantsSchema,
  type ObjectsConfig,
  objectLimitsSchema,
  storesSchema,
} from '../../../parent/objects/config.ts';
import { createGuestObjects } from '../../../parent/objects/guest-objects.ts';
import { openStore, openStores } from '../../../parent/objects/open-store.ts';
import { parseConfig } from '../../../shared/config/load.ts';
import { isPosternError } from '../../../shared/errors.ts';
import { createMemoryStore } from '../../../shared/objects/memory.ts';

const schema = v.strictObject({
  stores: storesSchema,
  guests: v.record(
    v.string(),
    v.strictObject({
      objects: v.optional(grantsSchema, []),
      objectLimits: v.optional(objectLimitsSchema, {}),
    }),
  ),
});

function parse(text: string): ObjectsConfig {
  return parseConfig(text, 'test', schema, findObjectConflicts);
}

function problemPaths(text: string): string[] {
  try {
    parse(text);
  } catch (error) {
    assert.ok(isPosternError(error, 'ERR_CONFIG_INVALID'), String(error));
    return error.problems.map(({ path }) => path);
  }
  return [];
}

const STORES = 'stores: {disk: {directory: {path: /srv/a}}, more: {directory: {path: /srv/b}}}';

describe('object configuration', () => {
  it('is as its page shows it', () => {
    const page = readFileSync(new URL('../../../docs/objects.md', import.meta.url), 'utf8');
    const example = /```yaml\n([\s\S]*?)```/.exec(page)?.[1] ?? '';
    const config = parse(example);
    assert.deepEqual(Object.keys(config.stores), ['disk', 'cloud', 'ceph']);
    assert.equal(config.guests['web']?.objects.length, 2);
  });

  it('takes directories, buckets and grants', () => {
    const config = parse(`
stores:
  disk: {directory: {path: /srv/postern}}
  cloud:
    s3:
      bucket: my-bucket
      region: eu-central-1
      endpoint: https://s3.example.com
      forcePathStyle: true
      credentials: {accessKeyId: AKIA1, secretAccessKeyFile: /etc/postern/secret}
    cache: {path: /var/cache/postern, maxBytes: 1000000000}
  amazon: {s3: {bucket: other, region: us-east-1, credentials: aws}}
guests:
  a:
    objects:
      - {store: disk, prefix: a/}
      - {store: cloud, prefix: tenant/a/, maxBytes: 1000000, maxObjects: 10}
  b: {objects: [{store: disk, prefix: b/}, {store: cloud, prefix: a/}]}
`);
    assert.equal(config.guests['a']?.objects[1]?.maxObjects, 10);
    assert.equal(config.stores['amazon']?.s3?.credentials, 'aws');
  });

  it('refuses a store that is neither, or both, or has no credentials', () => {
    assert.deepEqual(problemPaths('stores: {x: {}}\nguests: {}'), ['stores.x']);
    const both =
      'stores: {x: {directory: {path: /a}, s3: {bucket: abc, region: r, credentials: aws}}}\nguests: {}';
    assert.deepEqual(problemPaths(both), ['stores.x']);
    assert.deepEqual(problemPaths('stores: {x: {s3: {bucket: abc, region: r}}}\nguests: {}'), [
      'stores.x.s3.credentials',
    ]);
    assert.deepEqual(problemPaths('stores: {x: {directory: {path: rel}}}\nguests: {}'), [
      'stores.x.directory.path',
    ]);
    const url =
      'stores: {x: {s3: {bucket: abc, region: r, credentials: aws, endpoint: ftp://h}}}\nguests: {}';
    assert.deepEqual(problemPaths(url), ['stores.x.s3.endpoint']);
  });

  it('refuses prefixes that are none, and stores that are not there', () => {
    for (const prefix of ['', '/', 'a', '/a/', 'a//', '../', 'a/../b/', '"ü/"']) {
      const text = `${STORES}\nguests: {a: {objects: [{store: disk, prefix: ${prefix || '""'}}]}}`;
      assert.deepEqual(problemPaths(text), ['guests.a.objects[0].prefix'], prefix);
    }
    assert.deepEqual(problemPaths(`${STORES}\nguests: {a: {objects: [{store: other, prefix: a/}]}}`), [
      'guests.a.objects[0].store',
    ]);
  });

  it('refuses grants that reach into each other, unless two guests share them', () => {
    const grants = (a: string, b: string): string[] =>
      problemPaths(`${STORES}\nguests: {a: {objects: [${a}]}, b: {objects: [${b}]}}`);
    assert.deepEqual(grants('{store: disk, prefix: a/}', '{store: disk, prefix: a/b/}'), [
      'guests.b.objects[0].prefix',
    ]);
    assert.deepEqual(grants('{store: disk, prefix: a/}', '{store: disk, prefix: a/}').length, 1);
    assert.deepEqual(
      grants('{store: disk, prefix: a/, shared: true}', '{store: disk, prefix: a/}').length,
      1,
    );
    assert.deepEqual(
      grants('{store: disk, prefix: a/, shared: true}', '{store: disk, prefix: a/, shared: true}'),
      [],
    );
    assert.deepEqual(grants('{store: disk, prefix: a/}', '{store: more, prefix: a/}'), []);
    assert.deepEqual(
      grants('{store: disk, prefix: a/}, {store: more, prefix: a/b/}', '{store: disk, prefix: c/}'),
      ['guests.a.objects[1].prefix'],
    );
    assert.deepEqual(grants('{store: disk, prefix: a/}', '{store: disk, prefix: a-b/}'), []);
  });

  it('sees one folder, and one bucket, under two names', () => {
    const twice = 'stores: {x: {directory: {path: /a}}, y: {directory: {path: /a}}}\nguests: {}';
    assert.deepEqual(problemPaths(twice), ['stores.y.directory.path']);
    const s3 = '{s3: {bucket: abc, region: r, credentials: aws}}';
    const text = `stores: {x: ${s3}, y: ${s3}}\nguests: {a: {objects: [{store: x, prefix: a/}]}, b: {objects: [{store: y, prefix: a/}]}}`;
    assert.deepEqual(problemPaths(text), ['guests.b.objects[0].prefix']);
  });
});

describe('stores of a configuration', () => {
  const folders: string[] = [];
  after(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true }))));

  it('opens what it describes, and says what is missing', async () => {
    const folder = await mkdtemp(`${tmpdir()}/postern-open-`);
    folders.push(folder);
    const { store } = await openStore({ directory: { path: folder } });
    assert.equal(await store.putIfAbsent('a/b', Buffer.from('x')), 'created');
    await assert.rejects(openStores({ x: { directory: { path: `${folder}/none` } } }), {
      code: 'ERR_STORE_UNSUITABLE',
    });
    await writeFile(`${folder}/secret`, 'abc\n');
    const s3 = { bucket: 'b', region: 'r', forcePathStyle: true };
    const credentials = { accessKeyId: 'a', secretAccessKeyFile: `${folder}/secret` };
    (await openStore({ s3: { ...s3, credentials } })).close();
    const missing = { accessKeyId: 'a', secretAccessKeyFile: `${folder}/none` };
    await assert.rejects(openStore({ s3: { ...s3, credentials: missing } }), {
      code: 'ERR_CONFIG_UNREADABLE',
    });
  });

  it('gives a guest its grants and no more', () => {
    const limits = v.parse(objectLimitsSchema, {});
    const grants = v.parse(grantsSchema, [{ store: 'x', prefix: 'a/', maxBytes: 10 }]);
    const service = createGuestObjects(
      grants,
      limits,
      () => createMemoryStore(),
      () => {},
    );
    assert.equal(service.streamCount, 0);
  });
});
