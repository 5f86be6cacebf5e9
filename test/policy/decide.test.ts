import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compilePolicy } from '../../shared/policy/compile.ts';
import { type Decision, decide } from '../../shared/policy/decide.ts';
import { parsePolicy } from '../../shared/policy/policy.ts';
import type { DnssecState } from '../../shared/policy/types.ts';
import { Asked } from './deciding.ts';

test('an empty policy allows nothing', () => {
  const policy = compilePolicy(parsePolicy('version: 1', 'test'));
  const answer = decide(policy, { protocol: 'tcp', port: 443, name: 'example.com' });
  assert.deepEqual(answer, { verdict: 'deny', reason: 'no-rule', name: 'example.com' });
});

const MIXED = new Asked(`
allow:
  - { name: api, fqdn: api.example.com, ports: [443, "8000-8100"] }
  - { name: dns, fqdn: "*.dns.example.com", ports: 53, protocol: [tcp, udp] }
  - { name: net, cidr: 198.51.100.0/24, ports: 5432 }
  - { name: ping, cidr: 198.51.100.0/24, protocol: icmp }
deny:
  - { name: not-this, ip: 198.51.100.66 }
  - { name: not-that, fqdn: evil.dns.example.com, ports: 53 }`);

test('a name alone: may it be resolved and dialled', () => {
  assert.equal(MIXED.brief({ name: 'api.example.com' }), 'allow rule api');
  assert.equal(MIXED.brief({ name: 'api.example.com', port: 8050 }), 'allow rule api');
  assert.equal(MIXED.brief({ name: 'api.example.com', port: 8101 }), 'deny port-not-allowed');
  assert.equal(MIXED.brief({ name: 'api.example.com', protocol: 'udp' }), 'deny protocol-not-allowed');
  assert.equal(MIXED.brief({ name: 'www.example.com' }), 'deny no-rule');
  assert.equal(MIXED.brief({ name: 'a.dns.example.com', port: 53, protocol: 'udp' }), 'allow rule dns');
  assert.equal(MIXED.brief({ name: 'evil.dns.example.com', port: 53 }), 'deny denied-by-rule not-that');
});

test('an address alone: by address rules', () => {
  assert.equal(MIXED.brief({ address: '198.51.100.7', port: 5432 }), 'allow rule net');
  assert.equal(MIXED.brief({ address: '198.51.100.7', port: 5433 }), 'deny port-not-allowed');
  assert.equal(
    MIXED.brief({ address: '198.51.100.7', port: 5432, protocol: 'udp' }),
    'deny protocol-not-allowed',
  );
  assert.equal(MIXED.brief({ address: '198.51.100.66', port: 5432 }), 'deny denied-by-rule not-this');
  assert.equal(MIXED.brief({ address: '203.0.113.1' }), 'deny no-rule');
});

test('ICMP has no port: whatever stands there is ignored', () => {
  for (const port of [0, 8, 443, -1]) {
    assert.equal(MIXED.brief({ address: '198.51.100.7', protocol: 'icmp', port }), 'allow rule ping');
    assert.equal(
      MIXED.brief({ address: '198.51.100.66', protocol: 'icmp', port }),
      'deny denied-by-rule not-this',
    );
  }
});

test('a name is judged by name rules, an address rule does not resolve it', () => {
  assert.equal(MIXED.brief({ name: 'db.example.com', address: '198.51.100.7', port: 5432 }), 'deny no-rule');
});

test('leases: an address stands for the names that lead to it now', () => {
  const leases = { '192.0.2.1': [{ name: 'api.example.com' }], '192.0.2.2': [] };
  assert.equal(MIXED.brief({ address: '192.0.2.1' }, leases), 'allow lease api');
  assert.equal(MIXED.brief({ address: '192.0.2.1', port: 22 }, leases), 'deny port-not-allowed');
  assert.equal(MIXED.brief({ address: '192.0.2.2' }, leases), 'deny no-lease');
  assert.equal(MIXED.brief({ address: '::ffff:192.0.2.1' }, leases), 'allow lease api');
  const decision = MIXED.decide({ address: '192.0.2.1' }, leases);
  assert.equal(decision.name, 'api.example.com');
});

/** Rows: state of the answer. Columns: require, validate, off. `unknown` is a plain resolver. */
const DNSSEC: readonly (readonly [DnssecState | 'unknown', string, string, string])[] = [
  ['secure', 'rule', 'rule', 'rule'],
  ['insecure', 'dnssec-insecure', 'rule', 'rule'],
  ['bogus', 'dnssec-bogus', 'dnssec-bogus', 'dnssec-bogus'],
  ['indeterminate', 'dnssec-indeterminate', 'dnssec-indeterminate', 'rule'],
  ['unknown', 'dnssec-unknown', 'rule', 'rule'],
];

test('DNSSEC: state by mode', () => {
  const asked = new Asked(`
allow:
  - { fqdn: require.example.com, ports: 443, dnssec: require }
  - { fqdn: validate.example.com, ports: 443 }
  - { fqdn: off.example.com, ports: 443, dnssec: off }`);
  for (const [state, ...reasons] of DNSSEC) {
    for (const [index, mode] of ['require', 'validate', 'off'].entries()) {
      const dnssec = state === 'unknown' ? {} : { dnssec: state };
      const { reason } = asked.decide({ name: `${mode}.example.com`, address: '192.0.2.1', ...dnssec });
      assert.equal(reason, reasons[index], `${state} under ${mode}`);
    }
  }
  // Before it is resolved nothing is known, and nothing is held against the name.
  assert.equal(asked.brief({ name: 'require.example.com' }), 'allow rule egress.allow[0]');
  assert.equal(
    asked.brief({ name: 'require.example.com', dnssec: 'bogus' }),
    'deny dnssec-bogus egress.allow[0]',
  );
});

test('a laxer rule behind a strict one still counts', () => {
  const asked = new Asked(`
allow:
  - { name: strict, fqdn: "**.example.com", ports: 443, dnssec: require }
  - { name: lax, fqdn: api.example.com, ports: "400-500" }`);
  const to = { name: 'api.example.com', address: '192.0.2.1' };
  assert.equal(asked.brief({ ...to, dnssec: 'secure' }), 'allow rule strict');
  assert.equal(asked.brief({ ...to, dnssec: 'insecure' }), 'allow rule lax');
  assert.equal(
    asked.brief({ ...to, name: 'www.example.com', dnssec: 'insecure' }),
    'deny dnssec-insecure strict',
  );
});

test('total: any destination gets an answer', () => {
  const strange = [
    {},
    { name: '' },
    { address: '' },
    { address: 'fe80::1%eth0' },
    { name: 'a'.repeat(100_000) },
    { name: 'x.example.com', port: Number.NaN },
    { name: 'x.example.com', port: 0 },
    { name: 'x.example.com', port: 65_536 },
    { name: 'x.example.com', port: 1.5 },
    { name: 'x.example.com', protocol: 'sctp' as 'tcp' },
    { name: 'x.example.com', dnssec: 'maybe' as 'secure' },
    { name: '__proto__' },
    { name: 'constructor', address: '::' },
  ];
  for (const to of strange) assert.equal(MIXED.decide(to).verdict, 'deny', JSON.stringify(to));
  const reasons = strange.map((to) => MIXED.decide(to).reason);
  assert.deepEqual(reasons.slice(0, 9), [
    'invalid-destination',
    'invalid-name',
    'invalid-address',
    'invalid-address',
    'invalid-name',
    'invalid-port',
    'invalid-port',
    'invalid-port',
    'invalid-port',
  ]);
});

test('the decision carries the one spelling of what to dial', () => {
  const decision: Decision = MIXED.decide({ name: 'API.example.com.', address: '2001:DB8:0:0::1' });
  assert.deepEqual(decision, {
    verdict: 'allow',
    reason: 'rule',
    rule: 'api',
    name: 'api.example.com',
    address: '2001:db8::1',
  });
});
