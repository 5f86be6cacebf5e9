import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  ADDRESSES_PER_NAME_MAX,
  LEASES_MAX,
  LeaseTable,
  NAMES_PER_ADDRESS_MAX,
} from '../../guest/dns/leases.ts';

function table(): { leases: LeaseTable; pass: (seconds: number) => void } {
  let now = 1000;
  const leases = new LeaseTable({ floorSeconds: 10, graceSeconds: 5, monotonic: () => now });
  return {
    leases,
    pass: (seconds) => {
      now += seconds;
    },
  };
}

const grant = (name: string, addresses: readonly string[], ttlSeconds = 60, dnssec = 'secure' as const) => ({
  name,
  chain: [name],
  addresses,
  ttlSeconds,
  dnssec,
});

describe('leases', () => {
  test('live for their TTL and the grace, at least for the floor and the grace', () => {
    const { leases, pass } = table();
    leases.grant(grant('long.test', ['192.0.2.1'], 60));
    leases.grant(grant('short.test', ['192.0.2.1'], 0));
    assert.deepEqual(leases.namesOf('192.0.2.1'), [
      { name: 'long.test', dnssec: 'secure' },
      { name: 'short.test', dnssec: 'secure' },
    ]);
    pass(14);
    assert.equal(leases.namesOf('192.0.2.1').length, 2);
    pass(1);
    assert.deepEqual(leases.namesOf('192.0.2.1'), [{ name: 'long.test', dnssec: 'secure' }]);
    pass(49);
    assert.equal(leases.list().length, 1);
    pass(1);
    assert.deepEqual(leases.namesOf('192.0.2.1'), []);
    assert.equal(leases.count, 0);
  });

  test('a bogus answer binds nothing, and a weaker one replaces a stronger', () => {
    const { leases } = table();
    leases.grant({ ...grant('a.test', ['192.0.2.1']), dnssec: 'bogus' });
    assert.deepEqual(leases.namesOf('192.0.2.1'), []);
    leases.grant(grant('a.test', ['192.0.2.1'], 1000));
    leases.grant({ ...grant('a.test', ['192.0.2.1'], 1), dnssec: 'insecure' });
    assert.deepEqual(leases.namesOf('192.0.2.1'), [{ name: 'a.test', dnssec: 'insecure' }]);
    assert.equal(leases.list()[0]?.expiresInSeconds, 15);
  });

  test('a shorter answer of the same state does not take away what was promised', () => {
    const { leases } = table();
    leases.grant(grant('a.test', ['192.0.2.1'], 1000));
    leases.grant(grant('a.test', ['192.0.2.1'], 1));
    assert.equal(leases.list()[0]?.expiresInSeconds, 1005);
  });

  test('names of an address, addresses of a name and leases in all are capped', () => {
    const { leases } = table();
    for (let index = 0; index < NAMES_PER_ADDRESS_MAX + 10; index += 1)
      leases.grant(grant(`n${index}.test`, ['192.0.2.1']));
    assert.equal(leases.namesOf('192.0.2.1').length, NAMES_PER_ADDRESS_MAX);
    const many = Array.from({ length: ADDRESSES_PER_NAME_MAX }, (_, index) => `198.51.100.${index}`);
    leases.grant(grant('many.test', many));
    leases.grant(grant('many.test', ['203.0.113.1']));
    assert.equal(leases.list().filter(({ name }) => name === 'many.test').length, ADDRESSES_PER_NAME_MAX);
    assert.equal(leases.namesOf('203.0.113.1').length, 1);
    for (let index = 0; index < LEASES_MAX + 100; index += 1) {
      leases.grant(grant(`m${index}.test`, [`2001:db8::${index.toString(16)}`]));
    }
    assert.equal(leases.count, LEASES_MAX);
    assert.equal(leases.namesOf(`2001:db8::${(LEASES_MAX + 99).toString(16)}`).length, 1);
  });
});
