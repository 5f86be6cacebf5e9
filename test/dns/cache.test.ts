import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BoundedCache } from '../../guest/dns/cache.ts';
import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { addressRdata, nameRdata } from './encode.ts';
import { TestWorld } from './world.ts';
import { TestZone } from './zone.ts';

describe('a cache that is bounded in bytes', () => {
  /** Room for ten entries of this size and what they need themselves. */
  const cacheOfTen = (): { cache: BoundedCache<number>; put: (index: number) => void } => {
    const one = new BoundedCache<number>(1_000_000);
    one.set('00', 0, 1, 1_000);
    const cache = new BoundedCache<number>(10 * one.sizeBytes);
    return { cache, put: (index) => cache.set(String(index).padStart(2, '0'), index, 100, 1_000) };
  };

  test('counts what is said of values, its keys and itself, and forgets the oldest that nobody used', () => {
    const { cache, put } = cacheOfTen();
    for (let index = 0; index < 10; index += 1) put(index);
    assert.equal(cache.count, 10);
    assert.ok(cache.sizeBytes > 10 * 1_002);
    cache.get('00', 0);
    cache.get('02', 0);
    for (let index = 10; index < 13; index += 1) put(index);
    const kept = Array.from({ length: 13 }, (_, index) => cache.get(String(index).padStart(2, '0'), 0));
    const here = kept.filter((value) => value !== undefined);
    assert.deepEqual(here, [0, 2, 5, 6, 7, 8, 9, 10, 11, 12]);
    // Now all were used: the next still finds room.
    put(13);
    assert.equal(cache.count, 10);
    assert.equal(cache.get('13', 0), 13);
  });

  test('is never over its bound, whatever comes and goes', () => {
    const { cache, put } = cacheOfTen();
    const full = (() => {
      for (let index = 0; index < 10; index += 1) put(index);
      return cache.sizeBytes;
    })();
    for (let index = 0; index < 5_000; index += 1) {
      const key = String((index * 7919) % 50).padStart(2, '0');
      if (index % 3 === 0) cache.get(key, 0);
      else if (index % 11 === 0) cache.delete(key);
      else cache.set(key, index, 100, (index * 31) % 3_000);
      assert.ok(cache.sizeBytes <= full);
    }
    cache.set('large', 1, 100, full);
    assert.equal(cache.get('large', 0), undefined);
    for (let index = 0; index < 50; index += 1) cache.delete(String(index).padStart(2, '0'));
    assert.deepEqual([cache.count, cache.sizeBytes], [0, 0]);
  });

  test('gives nothing back that has ended', () => {
    const { cache, put } = cacheOfTen();
    put(1);
    assert.equal(cache.get('01', 99.9), 1);
    assert.equal(cache.get('01', 100), undefined);
    assert.deepEqual([cache.count, cache.sizeBytes], [0, 0]);
  });
});

test('what comes from the cache is what was proven, for every kind of answer', async () => {
  const zone = new TestZone('example.', { denial: 'nsec3' });
  zone.add('www.example.', TYPE.A, addressRdata('192.0.2.2'), addressRdata('192.0.2.1'));
  zone.add('www.example.', TYPE.TXT, Buffer.from([0, 0xff]));
  zone.add('*.wild.example.', TYPE.A, addressRdata('192.0.2.3'));
  zone.add('a.example.', TYPE.CNAME, nameRdata('b.unsigned.'));
  zone.add('d.example.', TYPE.DNAME, nameRdata('wild.example.'));
  const unsigned = new TestZone('unsigned.', { signed: false });
  unsigned.add('b.unsigned.', TYPE.A, addressRdata('198.51.100.1'));
  const world = new TestWorld(new TestZone('.'), zone, unsigned);
  const validator = world.validator();
  const questions: [string, number][] = [
    ['www.example.', TYPE.A],
    ['www.example.', TYPE.ANY],
    ['www.example.', TYPE.AAAA],
    ['none.example.', TYPE.A],
    ['x.wild.example.', TYPE.A],
    ['a.example.', TYPE.A],
    ['y.d.example.', TYPE.A],
    ['y.d.example.', TYPE.CNAME],
    ['none.unsigned.', TYPE.A],
    ['.', TYPE.SOA],
  ];
  for (const [text, type] of questions) {
    const name = DomainName.parse(text);
    const proven = await validator.resolve(name, type);
    const asked = world.asked.length;
    const again = await validator.resolve(name, type);
    assert.equal(world.asked.length, asked, text);
    assert.deepEqual({ ...again, statuses: [] }, { ...proven, statuses: [] }, text);
    assert.ok(proven.statuses.length > 0);
  }
});
