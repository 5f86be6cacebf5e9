import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress, parseAddress } from '../../shared/policy/address.ts';
import { embeddedAddresses, specialKindOf } from '../../shared/policy/special.ts';

const KINDS: readonly (readonly [string, string | undefined])[] = [
  ['0.0.0.0', 'unspecified'],
  ['0.1.2.3', 'unspecified'],
  ['10.255.255.255', 'private'],
  ['11.0.0.0', undefined],
  ['100.64.0.1', 'cgnat'],
  ['100.100.100.200', 'metadata'],
  ['127.0.0.1', 'loopback'],
  ['127.255.255.254', 'loopback'],
  ['128.0.0.0', undefined],
  ['168.63.129.16', 'metadata'],
  ['168.63.129.17', undefined],
  ['169.254.0.1', 'link-local'],
  ['169.254.169.254', 'metadata'],
  ['169.254.170.2', 'metadata'],
  ['172.15.255.255', undefined],
  ['172.16.0.0', 'private'],
  ['172.31.255.255', 'private'],
  ['172.32.0.0', undefined],
  ['192.0.0.192', 'metadata'],
  ['192.0.0.1', 'reserved'],
  ['192.168.1.1', 'private'],
  ['198.19.255.255', 'reserved'],
  ['224.0.0.1', 'multicast'],
  ['240.0.0.1', 'reserved'],
  ['255.255.255.255', 'broadcast'],
  // Documentation space is not special: examples and tests are made of it.
  ['192.0.2.1', undefined],
  ['198.51.100.1', undefined],
  ['203.0.113.1', undefined],
  ['2001:db8::1', undefined],
  ['2a00:1450::1', undefined],
  ['::', 'unspecified'],
  ['::1', 'loopback'],
  ['fe80::1', 'link-local'],
  ['fec0::1', 'private'],
  ['fc00::1', 'unique-local'],
  ['fd00:ec2::254', 'metadata'],
  ['fd00:ec2::253', 'unique-local'],
  ['ff02::1', 'multicast'],
  ['100::1', 'reserved'],
  ['4000::1', 'reserved'],
  ['not an address', undefined],
];

test('the kinds of special space, and their edges', () => {
  for (const [address, kind] of KINDS) assert.equal(specialKindOf(address), kind, address);
});

/** Every way to write 169.254.169.254 (a9fe:a9fe) and 127.0.0.1 into an IPv6 address that something undoes. */
const EMBEDDED: readonly (readonly [string, string])[] = [
  ['::ffff:169.254.169.254', 'metadata'],
  ['::169.254.169.254', 'metadata'],
  ['::ffff:0:169.254.169.254', 'metadata'],
  ['64:ff9b::169.254.169.254', 'metadata'],
  ['64:ff9b:1::169.254.169.254', 'metadata'],
  ['64:ff9b:1:a9fe:a9:fe00::', 'metadata'],
  ['64:ff9b:1:a9:fe:a9fe::', 'metadata'],
  ['64:ff9b:1:0:a9:fea9:fe00:0', 'metadata'],
  ['2002:a9fe:a9fe::1', 'metadata'],
  ['2001:0:a9fe:a9fe::', 'metadata'],
  ['2001:0:c000:201::5601:5601', 'metadata'],
  ['2001:db8::5efe:169.254.169.254', 'metadata'],
  ['2001:db8::200:5efe:169.254.169.254', 'metadata'],
  // Two at once: 6to4 of a harmless address, ISATAP of loopback.
  ['2002:c000:201::5efe:127.0.0.1', 'loopback'],
  // The worse of two wins, whichever comes first.
  ['2002:a00:1::5efe:169.254.169.254', 'metadata'],
  ['64:ff9b::a00:1', 'private'],
  ['64:ff9b:1::c000:201', 'private'],
];

test('sees through every embedded form', () => {
  for (const [address, kind] of EMBEDDED) assert.equal(specialKindOf(address), kind, address);
});

test('a harmless address stays harmless when it is embedded', () => {
  for (const text of [
    '64:ff9b::192.0.2.1',
    '2002:c000:201::1',
    '2001:0:c000:201::3fff:fdfe',
    '::ffff:192.0.2.1',
  ]) {
    assert.equal(specialKindOf(text), undefined, text);
  }
});

test('names the embedded addresses and where they stand', () => {
  const read = (text: string) => {
    const address = parseAddress(text);
    assert.ok(address);
    return embeddedAddresses(address).map((found) => `${formatAddress(found.address)}@${found.offset}`);
  };
  assert.deepEqual(read('2002:a01:203::1'), ['10.1.2.3@16']);
  assert.deepEqual(read('2001:0:c000:201::f5fe:fdfc'), ['192.0.2.1@32', '10.1.2.3@96']);
  assert.deepEqual(read('::1'), []);
  assert.deepEqual(read('2001:db8::1'), []);
  assert.deepEqual(read('10.1.2.3'), []);
});
