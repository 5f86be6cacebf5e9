import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { egressSchema } from '../../../parent/config/egress.ts';
import { Guard } from '../../../parent/egress/guard.ts';
import { ownAddresses } from '../../../parent/egress/own-addresses.ts';

const OWN = new Set(['192.0.2.10', '2001:db8::10']);

function guardOf(egress: unknown): Guard {
  return new Guard(v.parse(egressSchema, egress), () => OWN);
}

/** `allow`, or why not. */
function verdict(guard: Guard, address: string, port = 443): string {
  const decision = guard.decide('tcp', address, port);
  return decision.verdict === 'allow' ? 'allow' : (decision.special ?? decision.reason);
}

/** The same IPv4 address in every IPv6 form that something on the way may read it out of. */
function embeddings(address: string): string[] {
  const [a = 0, b = 0, c = 0, d = 0] = address.split('.').map(Number);
  const high = ((a << 8) | b).toString(16);
  const low = ((c << 8) | d).toString(16);
  return [
    `::ffff:${address}`,
    `::${address}`,
    `::ffff:0:${address}`,
    `64:ff9b::${address}`,
    `64:ff9b:1::${address}`,
    `2002:${high}:${low}::1`,
    `2001:0:${high}:${low}::1`,
    `2001:db8::5efe:${address}`,
  ];
}

const SPECIAL: Record<string, readonly string[]> = {
  loopback: ['127.0.0.1', '127.255.255.254', '::1'],
  'link-local': ['169.254.1.1', 'fe80::1'],
  metadata: ['169.254.169.254', 'fd00:ec2::254', '168.63.129.16'],
  multicast: ['224.0.0.1', 'ff02::1'],
  unspecified: ['0.0.0.0', '::'],
  own: ['192.0.2.10', '2001:db8::10'],
};

test('any means everything but special addresses, in every form', () => {
  const guard = guardOf({ allow: 'any' });
  for (const address of ['198.51.100.7', '10.1.2.3', '192.168.1.1', '2001:db8::1', 'fd12::1']) {
    assert.equal(verdict(guard, address), 'allow', address);
  }
  for (const [kind, addresses] of Object.entries(SPECIAL)) {
    for (const address of addresses) {
      assert.equal(verdict(guard, address), kind, address);
      if (address.includes(':')) continue;
      for (const form of embeddings(address)) assert.notEqual(verdict(guard, form), 'allow', form);
    }
  }
});

test('a special address is open to a rule that names it, and to no wider one', () => {
  for (const address of Object.values(SPECIAL).flat()) {
    const cidr = address.includes(':') ? '::/0' : '0.0.0.0/0';
    assert.notEqual(verdict(guardOf({ allow: [{ cidr, ports: 443 }] }), address), 'allow', address);
    assert.equal(verdict(guardOf({ allow: [{ ip: address, ports: 443 }] }), address), 'allow', address);
  }
  // A rule for the network that the parent is in does not open the parent.
  assert.equal(verdict(guardOf({ allow: [{ cidr: '192.0.2.0/24', ports: 443 }] }), '192.0.2.10'), 'own');
  assert.equal(verdict(guardOf({ allow: [{ cidr: '192.0.2.0/24', ports: 443 }] }), '192.0.2.11'), 'allow');
});

test('deny rules win, in every form of the address', () => {
  const guard = guardOf({ allow: 'any', deny: [{ cidr: '198.51.100.0/24' }] });
  assert.equal(verdict(guard, '198.51.100.7'), 'denied-by-rule');
  for (const form of embeddings('198.51.100.7')) assert.notEqual(verdict(guard, form), 'allow', form);
  assert.equal(verdict(guard, '203.0.113.7'), 'allow');
});

test('nothing is allowed but by a rule, and ports count', () => {
  assert.equal(verdict(guardOf({ allow: [] }), '198.51.100.7'), 'no-rule');
  const guard = guardOf({ allow: [{ ip: '198.51.100.7', ports: [80, '8000-8100'] }] });
  assert.equal(verdict(guard, '198.51.100.7', 8050), 'allow');
  assert.equal(verdict(guard, '198.51.100.7', 443), 'port-not-allowed');
  assert.equal(verdict(guard, '198.51.100.8', 80), 'no-rule');
});

test('what is allowed is dialled by its one spelling', () => {
  const decision = guardOf({ allow: 'any' }).decide('tcp', '::ffff:198.51.100.7', 443);
  assert.equal(decision.verdict === 'allow' && decision.address, '198.51.100.7');
});

test('the host’s own addresses are read, less loopback', () => {
  assert.equal(ownAddresses().has('127.0.0.1'), false);
  assert.equal(ownAddresses(), ownAddresses());
});
