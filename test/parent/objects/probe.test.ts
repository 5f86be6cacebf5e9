import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { probeStore } from '../../../parent/objects/probe.ts';
import { provenStore } from '../../../parent/objects/proven.ts';
import { FaultyStore } from '../../../shared/objects/fault.ts';
import { createMemoryStore, MemoryObjects } from '../../../shared/objects/memory.ts';
import type { ObjectStore } from '../../../shared/objects/store.ts';

const unsuitable = { code: 'ERR_STORE_UNSUITABLE' };

/** Ignores the condition: what a server does that does not know If-None-Match on PUT. */
class Replacing extends MemoryObjects {
  override async putIfAbsent(key: string, bytes: Buffer): Promise<'created' | 'exists'> {
    this.overwrite(key, Buffer.from(bytes));
    return 'created';
  }
}

/** Looks first and writes later: right alone, wrong in a race. */
class CheckThenWrite extends MemoryObjects {
  override async putIfAbsent(key: string, bytes: Buffer): Promise<'created' | 'exists'> {
    if (this.peek(key) !== undefined) return 'exists';
    await sleep(2);
    this.overwrite(key, Buffer.from(bytes));
    return 'created';
  }
}

describe('probe for conditional writes', () => {
  it('accepts a store that honours them, and leaves nothing in it', async () => {
    const objects = new MemoryObjects();
    await probeStore(createMemoryStore(objects), 'a/');
    assert.deepEqual(objects.keys(), []);
  });

  it('accepts one that answers a race with 409s', async () => {
    const rates = { 'put-applied-error': 0.3 };
    for (let seed = 0; seed < 10; seed += 1) {
      await probeStore(new FaultyStore(createMemoryStore(), { seed, rates }), 'a/');
    }
  });

  it('refuses one that replaces, and one that looks first and writes later', async () => {
    await assert.rejects(probeStore(new Replacing(), 'a/'), { ...unsuitable, message: /If-None-Match/ });
    await assert.rejects(probeStore(new CheckThenWrite(), 'a/'), { ...unsuitable, message: /racing/ });
  });

  it('refuses one that does not keep what it took, or shows what is deleted', async () => {
    const forgetful: ObjectStore = { ...bound(), putIfAbsent: async () => 'created' };
    await assert.rejects(probeStore(forgetful, 'a/'), unsuitable);
    const undying: ObjectStore = { ...bound(), delete: async () => {} };
    await assert.rejects(probeStore(undying, 'a/'), unsuitable);
  });

  it('does not call one unsuitable that is only out of reach', async () => {
    const faulty = new FaultyStore(createMemoryStore(), { seed: 1, rates: {} });
    faulty.setUnreachable(Number.POSITIVE_INFINITY);
    const proven = provenStore(faulty, 'a/');
    await assert.rejects(proven.prove(), { code: 'ERR_STORE_UNAVAILABLE' });
    await assert.rejects(proven.store.get('a/x'), { code: 'ERR_STORE_UNAVAILABLE' });
    faulty.setUnreachable(0);
    assert.equal(await proven.store.get('a/x'), undefined);
    assert.equal(await proven.store.putIfAbsent('a/x', Buffer.from('x')), 'created');
  });

  it('lets nothing through to one that is unsuitable', async () => {
    const objects = new Replacing();
    const proven = provenStore(objects, 'a/');
    await assert.rejects(proven.store.putIfAbsent('a/x', Buffer.from('x')), { code: 'ERR_STORE_DENIED' });
    await assert.rejects(proven.prove(), unsuitable);
    assert.deepEqual(objects.keys(), []);
  });
});

function bound(): ObjectStore {
  const objects = new MemoryObjects();
  return {
    putIfAbsent: (key, bytes) => objects.putIfAbsent(key, bytes),
    get: (key, options) => objects.get(key, options),
    head: (key) => objects.head(key),
    list: (prefix, options) => objects.list(prefix, options),
    delete: (key) => objects.delete(key),
  };
}
