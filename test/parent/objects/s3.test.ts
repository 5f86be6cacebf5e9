import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { probeStore } from '../../../parent/objects/probe.ts';
import { createS3Store, type S3Store } from '../../../parent/objects/s3.ts';
import { limitedStore } from '../../../shared/objects/limit.ts';
import { quotaStore } from '../../../shared/objects/quota.ts';
import { retryingStore } from '../../../shared/objects/retry.ts';
import { objectStoreConformance, pattern } from '../../conformance/object-store.ts';
import { relayed } from '../../objects/relayed.ts';
import { openBucketStore, s3Options } from '../../s3/buckets.ts';
import { type Radosgw, startRadosgw } from '../../s3/radosgw.ts';

describe('S3 store on a real radosgw', () => {
  let server: Radosgw;
  const stores: S3Store[] = [];
  const open = async (): Promise<S3Store['store']> => {
    const opened = await openBucketStore(server);
    stores.push(opened);
    return opened.store;
  };
  before(async () => {
    server = await startRadosgw({ cache: false });
  });
  after(async () => {
    for (const { close } of stores) close();
    await server?.stop();
  });

  objectStoreConformance('s3', async () => ({ store: await open() }));

  objectStoreConformance('s3, limited, with a quota, retrying', async () => ({
    store: retryingStore(
      quotaStore(limitedStore(await open(), { concurrency: 8, waiting: 100 }), 'q/', {
        maxBytes: 2 ** 30,
        maxObjects: 1000,
      }),
    ),
    prefix: 'q/',
  }));

  objectStoreConformance('relay of s3', async () => {
    const { store, close } = relayed(await open());
    return { store, close: async () => close() };
  });

  it('passes the probe, and nothing of it stays', async () => {
    const store = await open();
    await probeStore(store, 'guest-a/');
    assert.deepEqual((await store.list('')).objects, []);
  });

  it('does not take a missing bucket for a missing object', async () => {
    const { store, close } = createS3Store(s3Options(server, 'no-such-bucket'));
    const denied = { code: 'ERR_STORE_DENIED' };
    await assert.rejects(store.get('a'), denied);
    await assert.rejects(store.head('a'), denied);
    await assert.rejects(store.list('a'), denied);
    await assert.rejects(store.putIfAbsent('a', Buffer.from('x')), denied);
    close();
  });

  it('is refused with a wrong secret', async () => {
    const credentials = { accessKeyId: server.accessKeyId, secretAccessKey: 'not-this' };
    const { store, close } = await openBucketStore(server, { credentials });
    await assert.rejects(store.get('a'), { code: 'ERR_STORE_DENIED' });
    await assert.rejects(store.putIfAbsent('a', Buffer.from('x')), { code: 'ERR_STORE_DENIED' });
    close();
  });

  it('is out of reach while the gateway is down, and a retrying store waits for it', async () => {
    const store = await open();
    await store.putIfAbsent('v/a', Buffer.from('kept'));
    await server.killGateway();
    await assert.rejects(store.get('v/a'), { code: 'ERR_STORE_UNAVAILABLE' });
    await assert.rejects(store.list('v/'), { code: 'ERR_STORE_UNAVAILABLE' });
    await assert.rejects(store.putIfAbsent('v/b', Buffer.from('b')), { code: 'ERR_STORE_UNAVAILABLE' });
    const retrying = retryingStore(store);
    const waiting = [retrying.get('v/a'), retrying.putIfAbsent('v/c', pattern(100_000, 1))] as const;
    await server.startGateway();
    assert.equal(String(await waiting[0]), 'kept');
    assert.equal(await waiting[1], 'created');
  });

  it('settles PUTs that a killed gateway left in doubt', async () => {
    const store = retryingStore(await open());
    const bodies = Array.from({ length: 24 }, (_, index) => pattern(200_000, index));
    const puts = bodies.map((body, index) => store.putIfAbsent(`v/${index}`, body));
    await Promise.race(puts);
    await server.killGateway();
    await server.startGateway();
    const answers = await Promise.all(puts);
    for (const [index, body] of bodies.entries()) {
      assert.equal(answers[index], 'created');
      assert.ok((await store.get(`v/${index}`))?.equals(body));
    }
  });
});
