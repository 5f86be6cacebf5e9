import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compilePolicy } from '../../shared/policy/compile.ts';
import { decideIngress } from '../../shared/policy/ingress.ts';
import { parsePolicy } from '../../shared/policy/policy.ts';

const POLICY = compilePolicy(
  parsePolicy(
    `version: 1
ingress:
  - { name: web, port: 443, to: 127.0.0.1:8443, proxyProtocol: v2 }
  - { port: 443, to: 127.0.0.1:8444, protocol: udp }
  - { name: metrics, port: 9090, to: "[::1]:9090", from: [203.0.113.0/24, "2001:db8::7"] }`,
    'test',
  ),
);

function arrive(port: number, client: string, protocol: 'tcp' | 'udp' = 'tcp'): string {
  const decision = decideIngress(POLICY, { protocol, port, client });
  return decision.verdict === 'allow' ? decision.rule.label : decision.reason;
}

test('service ports are those of the policy, by protocol', () => {
  assert.equal(arrive(443, '198.51.100.1'), 'web');
  assert.equal(arrive(443, '198.51.100.1', 'udp'), 'ingress[1]');
  assert.equal(arrive(80, '198.51.100.1'), 'no-ingress');
  assert.equal(arrive(9090, '203.0.113.1', 'udp'), 'no-ingress');
});

test('sources: listed ones alone where there is a list', () => {
  assert.equal(arrive(9090, '203.0.113.255'), 'metrics');
  assert.equal(arrive(9090, '::ffff:203.0.113.1'), 'metrics');
  assert.equal(arrive(9090, '2001:db8::7'), 'metrics');
  assert.equal(arrive(9090, '2001:db8::8'), 'source-not-allowed');
  assert.equal(arrive(9090, '64:ff9b::203.0.113.1'), 'source-not-allowed');
  assert.equal(arrive(9090, 'nobody'), 'source-not-allowed');
});
