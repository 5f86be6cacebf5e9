import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Asked } from './deciding.ts';

/** The ways round an egress filter that others fell for, as far as they end in a decision; each by its name. */

const API = `
allow:
  - { name: api, fqdn: api.example.com, ports: 443 }`;

/** One of each kind of special space, and how it may be dressed up. */
const SPECIAL: readonly (readonly [string, string])[] = [
  ['127.0.0.1', 'loopback'],
  ['127.8.9.10', 'loopback'],
  ['::1', 'loopback'],
  ['0.0.0.0', 'unspecified'],
  ['::', 'unspecified'],
  ['169.254.1.1', 'link-local'],
  ['fe80::1', 'link-local'],
  ['10.1.2.3', 'private'],
  ['172.16.0.1', 'private'],
  ['192.168.0.1', 'private'],
  ['100.64.0.1', 'cgnat'],
  ['fd12::1', 'unique-local'],
  ['169.254.169.254', 'metadata'],
  ['fd00:ec2::254', 'metadata'],
  ['168.63.129.16', 'metadata'],
  ['224.0.0.1', 'multicast'],
  ['ff02::1', 'multicast'],
  ['255.255.255.255', 'broadcast'],
  ['::ffff:127.0.0.1', 'loopback'],
  ['::127.0.0.1', 'loopback'],
  ['64:ff9b::169.254.169.254', 'metadata'],
  ['64:ff9b:1::10.1.2.3', 'private'],
  ['2002:7f00:1::', 'loopback'],
  ['2001:0:c000:201::5601:5601', 'metadata'],
  ['2001:db8::5efe:10.1.2.3', 'private'],
];

test('a name that resolves to loopback, link-local, private, metadata or multicast space', () => {
  const asked = new Asked(API);
  for (const [address, kind] of SPECIAL) {
    for (const dnssec of ['secure', 'insecure', undefined] as const) {
      const state = dnssec === undefined ? {} : { dnssec };
      const decision = asked.decide({ name: 'api.example.com', address, ...state });
      assert.equal(decision.verdict, 'deny', address);
      assert.equal(decision.reason, 'special-address');
      assert.equal(decision.verdict === 'deny' && decision.special, kind, address);
    }
    assert.equal(asked.brief({ address }, { [address]: [{ name: 'api.example.com' }] }).slice(0, 4), 'deny');
  }
});

test('the same name is allowed where an address rule allows that address, port and protocol too', () => {
  const asked = new Asked(
    `${API}\n  - { cidr: 10.1.0.0/16, ports: 443 }\n  - { cidr: 10.2.0.0/16, ports: 80 }`,
  );
  assert.equal(asked.brief({ name: 'api.example.com', address: '10.1.2.3' }), 'allow rule api');
  assert.equal(asked.brief({ name: 'api.example.com', address: '10.2.2.3' }), 'deny special-address api');
  // The rule names 10.1.0.0/16, not what a translator may make of another address.
  assert.equal(
    asked.brief({ name: 'api.example.com', address: '64:ff9b::10.1.2.3' }),
    'deny special-address api',
  );
});

test('a rule for the whole internet does not name loopback, link-local, metadata or multicast', () => {
  const asked = new Asked('allow: [{ name: all, cidr: [0.0.0.0/0, "::/0"], ports: "1-65535" }]');
  for (const [address, kind] of SPECIAL) {
    const wanted = ['private', 'cgnat', 'unique-local'].includes(kind)
      ? 'allow rule all'
      : 'deny special-address all';
    assert.equal(asked.brief({ address }), wanted, address);
  }
  assert.equal(asked.brief({ address: '198.51.100.1' }), 'allow rule all');
});

test('special space is allowed when an address rule names it', () => {
  const asked = new Asked(`
allow:
  - { name: lo, cidr: 127.0.0.0/8, ports: 443 }
  - { name: imds, ip: 169.254.169.254, ports: 80 }
  - { name: nat64, cidr: "64:ff9b::7f00:0/104", ports: 443 }`);
  assert.equal(asked.brief({ address: '127.0.0.1' }), 'allow rule lo');
  assert.equal(asked.brief({ address: '::ffff:127.0.0.1' }), 'allow rule lo');
  assert.equal(asked.brief({ address: '169.254.169.254', port: 80 }), 'allow rule imds');
  assert.equal(asked.brief({ address: '64:ff9b::127.0.0.1' }), 'allow rule nat64');
  assert.equal(asked.brief({ address: '::127.0.0.1' }), 'deny no-rule');
});

test('trailing dot, case, IDN and underscore labels are other spellings, not other names', () => {
  const asked = new Asked(`
allow:
  - { name: all, fqdn: "**.example.com", ports: 443 }
  - { name: idn, fqdn: bücher.example, ports: 443 }
deny:
  - { name: not, fqdn: [secret.example.com, _internal.example.com, straße.example.com] }`);
  for (const name of [
    'secret.example.com',
    'secret.example.com.',
    'SECRET.Example.Com',
    'ｓｅｃｒｅｔ.example.com',
    'secret。example。com',
    'se\u00adcret.example.com',
    '_internal.example.com',
    '_INTERNAL.example.com.',
    'straße.example.com',
    'xn--strae-oqa.example.com',
    'XN--STRAE-OQA.EXAMPLE.COM.',
  ]) {
    assert.equal(asked.brief({ name }), 'deny denied-by-rule not', name);
  }
  assert.equal(asked.brief({ name: 'open.example.com.' }), 'allow rule all');
  assert.equal(asked.brief({ name: 'xn--bcher-kva.example' }), 'allow rule idn');
  assert.equal(asked.brief({ name: 'secret.example.com..' }), 'deny invalid-name');
});

test('numeric spellings of an address', () => {
  const asked = new Asked(
    'allow: [{ name: all, cidr: [0.0.0.0/0, 127.0.0.0/8, 169.254.0.0/16], ports: 443 }]',
  );
  for (const text of [
    '2852039166',
    '0xa9fea9fe',
    '0x7f.1',
    '0251.0376.0251.0376',
    '169.254.43518',
    '127.1',
    '１２７.1',
  ]) {
    assert.equal(asked.brief({ name: text }), 'deny numeric-spelling', text);
    assert.equal(asked.brief({ address: text }), 'deny numeric-spelling', text);
    assert.equal(asked.brief({ name: text, address: '192.0.2.1' }), 'deny numeric-spelling', text);
  }
  // Where a name is due, even the plain form is none: whoever has an address says so.
  assert.equal(asked.brief({ name: '192.0.2.1' }), 'deny numeric-spelling');
});

test('deny rules see IPv4-mapped, NAT64, 6to4, IPv4-compatible, Teredo and ISATAP forms', () => {
  const asked = new Asked(`
allow:
  - { name: six, cidr: "::/0", ports: 443 }
  - { name: four, cidr: 0.0.0.0/0, ports: 443 }
  - { name: www, fqdn: www.example.com, ports: 443 }
deny:
  - { name: not, cidr: 198.51.100.0/24 }`);
  for (const address of [
    '198.51.100.7',
    '::ffff:198.51.100.7',
    '::ffff:c633:6407',
    '::198.51.100.7',
    '::ffff:0:198.51.100.7',
    '64:ff9b::198.51.100.7',
    '64:ff9b::c633:6407',
    '64:ff9b:1::198.51.100.7',
    '64:ff9b:1:c633:64:700::',
    '2002:c633:6407::1',
    '2001:0:c633:6407::1',
    '2001:0:c000:201::39cc:9bf8',
    '2001:db8:1:2::5efe:198.51.100.7',
    '2001:db8:1:2:200:5efe:c633:6407',
  ]) {
    assert.equal(asked.brief({ address }), 'deny denied-by-rule not', address);
    assert.equal(asked.brief({ name: 'www.example.com', address }), 'deny denied-by-rule not', address);
  }
});

test('an allow rule for IPv4 is for IPv4 and its mapped form, not for what a translator might do', () => {
  const asked = new Asked('allow: [{ name: four, cidr: 198.51.100.0/24, ports: 443 }]');
  assert.equal(asked.brief({ address: '::ffff:198.51.100.7' }), 'allow rule four');
  for (const address of [
    '64:ff9b::198.51.100.7',
    '2002:c633:6407::1',
    '::198.51.100.7',
    '2001:db8::5efe:198.51.100.7',
  ]) {
    assert.equal(asked.brief({ address }), 'deny no-rule', address);
  }
});

test('shared CDN addresses: two names on one address, another port', () => {
  const asked = new Asked(`
allow:
  - { name: a, fqdn: a.example.com, ports: 443 }
  - { name: b, fqdn: b.example.com, ports: 8443 }
deny:
  - { name: not-c, fqdn: c.example.com }`);
  const both = { '192.0.2.1': [{ name: 'a.example.com' }, { name: 'b.example.com' }] };
  assert.equal(asked.brief({ address: '192.0.2.1', port: 443 }, both), 'allow lease a');
  assert.equal(asked.brief({ address: '192.0.2.1', port: 8443 }, both), 'allow lease b');
  assert.equal(asked.brief({ address: '192.0.2.1', port: 80 }, both), 'deny port-not-allowed');
  const onlyA = { '192.0.2.1': [{ name: 'a.example.com' }] };
  assert.equal(asked.brief({ address: '192.0.2.1', port: 8443 }, onlyA), 'deny port-not-allowed');
  assert.equal(
    asked.brief({ name: 'a.example.com', address: '192.0.2.1', port: 8443 }),
    'deny port-not-allowed',
  );
  // A denied name on the address takes nothing from an allowed one there, and gains nothing by it.
  const withC = { '192.0.2.1': [{ name: 'c.example.com' }, { name: 'a.example.com' }] };
  assert.equal(asked.brief({ address: '192.0.2.1' }, withC), 'allow lease a');
  assert.equal(asked.brief({ name: 'c.example.com', address: '192.0.2.1' }), 'deny denied-by-rule not-c');
});

test('SNI: the decision says which names the ClientHello may hold', () => {
  const asked = new Asked(`
allow:
  - { name: a, fqdn: a.example.com, ports: 443, tls: sni }
  - { name: b, fqdn: "*.example.org", ports: 443, tls: sni }
  - { name: c, fqdn: c.example.com, ports: 443 }`);
  const serverNames = (...leases: string[]) => {
    const decision = asked.decide(
      { address: '192.0.2.1' },
      { '192.0.2.1': leases.map((name) => ({ name })) },
    );
    return decision.verdict === 'allow' ? decision.serverNames : decision.reason;
  };
  assert.deepEqual(serverNames('a.example.com'), ['a.example.com']);
  assert.deepEqual(serverNames('a.example.com', 'x.example.org'), ['a.example.com', 'x.example.org']);
  // A name whose rule asks for no SNI leads there too: nothing to check.
  assert.equal(serverNames('a.example.com', 'c.example.com'), undefined);
  assert.equal(serverNames('x.y.example.org'), 'no-lease');
});

test('SNI without a lease: a listed name does not open an address that it was not resolved to', () => {
  const asked = new Asked('allow: [{ fqdn: a.example.com, ports: 443, tls: sni }]');
  assert.equal(asked.brief({ address: '192.0.2.9' }, {}), 'deny no-lease');
  assert.equal(asked.brief({ address: '192.0.2.9' }), 'deny no-rule');
});

test('TCP 53 and DoH as side doors: a resolver’s address is a destination like any other', () => {
  const asked = new Asked(API);
  for (const [port, protocol] of [
    [53, 'tcp'],
    [53, 'udp'],
    [853, 'tcp'],
    [443, 'tcp'],
    [443, 'udp'],
  ] as const) {
    assert.equal(asked.brief({ address: '198.51.100.53', port, protocol }, {}), 'deny no-lease');
    assert.match(asked.brief({ name: 'dns.example.net', port, protocol }), /^deny no-rule/);
  }
});

test('a bogus or unproven answer binds no address, by name or by lease', () => {
  const asked = new Asked('allow: [{ name: a, fqdn: a.example.com, ports: 443, dnssec: require }]');
  const leased = (dnssec: 'bogus' | 'insecure' | 'indeterminate' | 'secure') =>
    asked.brief({ address: '192.0.2.1' }, { '192.0.2.1': [{ name: 'a.example.com', dnssec }] });
  assert.equal(leased('bogus'), 'deny dnssec-bogus a');
  assert.equal(leased('insecure'), 'deny dnssec-insecure a');
  assert.equal(leased('indeterminate'), 'deny dnssec-indeterminate a');
  assert.equal(leased('secure'), 'allow lease a');
});

test('the parent’s own addresses are denied unless a rule names exactly them', () => {
  const options = { ownAddresses: () => new Set(['198.51.100.1', '2001:db8::1', '10.0.0.5']) };
  const wide = 'allow: [{ name: wide, cidr: [0.0.0.0/0, "::/0", 198.51.100.0/24], ports: 443 }]';
  const guard = new Asked(wide, options);
  for (const address of [
    '198.51.100.1',
    '::ffff:198.51.100.1',
    '64:ff9b::198.51.100.1',
    '2001:db8::1',
    '10.0.0.5',
  ]) {
    assert.equal(guard.brief({ address }), 'deny special-address wide', address);
  }
  assert.equal(guard.brief({ address: '198.51.100.2' }), 'allow rule wide');
  const named = new Asked('allow: [{ name: self, ip: 198.51.100.1, ports: 443 }]', options);
  assert.equal(named.brief({ address: '198.51.100.1' }), 'allow rule self');
});

test('a host name that ends like a listed one is another name', () => {
  const asked = new Asked(`
allow:
  - { fqdn: example.com, ports: 443 }
  - { fqdn: "**.example.org", ports: 443 }`);
  for (const name of [
    'badexample.com',
    'example.com.evil.test',
    'xexample.org',
    'example.org',
    'example.com-evil.test',
  ]) {
    assert.equal(asked.brief({ name }), 'deny no-rule', name);
  }
});
