import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { policyDigest } from '../../shared/policy/digest.ts';
import { parsePolicy } from '../../shared/policy/policy.ts';

const hexOf = (text: string): string => policyDigest(parsePolicy(text, 'test')).toString('hex');

/** A reading of digest.md with nothing of the implementation's. */
function hashed(...parts: readonly (string | number)[]): string {
  const bytes = parts.map((part) => {
    const body = typeof part === 'string' ? Buffer.from(part) : Buffer.alloc(0);
    const head = Buffer.alloc(4);
    head.writeUInt32BE(typeof part === 'string' ? body.length : part);
    return Buffer.concat([head, body]);
  });
  return createHash('sha256').update(Buffer.concat(bytes)).digest('hex');
}

const FULL = `
version: 1
egress:
  allow:
    - name: payments
      fqdn: ["*.Example.com", api.example.com.]
      ports: [443, "8000-8100"]
      tls: sni
      dnssec: require
    - cidr: "2001:db8::/32"
      protocol: [icmp, udp]
      ports: 53
  deny:
    - ip: 192.0.2.7
ingress:
  - port: 443
    to: 127.0.0.1:8443
    proxyProtocol: v2
    from: [203.0.113.0/24]
`;

test('vectors', () => {
  assert.equal(hexOf('version: 1'), hashed('postern/policy/1', 0, 0, 0));
  assert.equal(hexOf('version: 1'), '79b82a0c50a791c35e4ed7fa75727c5bbf0216177f564f724b9c59710cd09cb3');
  const parts = [
    ...['postern/policy/1', 2],
    ...[
      'payments',
      2,
      '*.example.com',
      'api.example.com',
      0,
      1,
      'tcp',
      2,
      443,
      443,
      8000,
      8100,
      'require',
      'sni',
    ],
    ...['', 0, 1, '2001:db8::/32', 2, 'udp', 'icmp', 1, 53, 53, 'validate', ''],
    ...[1, '', 0, 1, '192.0.2.7/32', 3, 'tcp', 'udp', 'icmp', 1, 1, 65_535, 'validate', ''],
    ...[1, '', 'tcp', 443, '127.0.0.1', 8443, 'v2', 1, 1, '203.0.113.0/24'],
  ];
  assert.equal(hexOf(FULL), hashed(...parts));
  assert.equal(hexOf(FULL), '3b6793bd9ff7e56f193e55fe816de5156e09149e5e460feec068067ad32cac97');
});

test('the same for another layout, order of keys and lists, spelling and format', () => {
  const again = {
    ingress: [
      { from: '203.0.113.0/24', proxyProtocol: 'v2', to: '127.0.0.1:8443', port: 443, protocol: 'tcp' },
    ],
    egress: {
      deny: [{ cidr: '::ffff:192.0.2.7/128' }],
      allow: [
        {
          dnssec: 'require',
          tls: 'sni',
          ports: ['8000-8050', '8051-8100', 443],
          fqdn: ['API.example.com', '*.example.com'],
          name: 'payments',
          protocol: 'tcp',
        },
        { ports: [53], protocol: ['udp', 'icmp'], cidr: ['2001:0DB8::/32'] },
      ],
    },
    version: 1,
  };
  assert.equal(hexOf(JSON.stringify(again)), hexOf(FULL));
  assert.equal(hexOf(`# a comment\n${FULL.replaceAll(', ', ',    ').replaceAll('\n', '  \n')}`), hexOf(FULL));
});

test('another for every difference in meaning', () => {
  const changes: readonly (readonly [string, string])[] = [
    ['payments', 'payment'],
    ['443, "8000', '444, "8000'],
    ['8100', '8101'],
    ['require', 'validate'],
    ['      tls: sni\n', ''],
    ['api.example.com.', 'apj.example.com.'],
    ['*.Example', '**.Example'],
    ['[icmp, udp]', '[icmp, tcp]'],
    ['/32', '/33'],
    ['192.0.2.7', '192.0.2.6'],
    ['127.0.0.1:8443', '127.0.0.2:8443'],
    ['127.0.0.1:8443', '127.0.0.1:8444'],
    ['    proxyProtocol: v2\n', ''],
    ['    from: [203.0.113.0/24]\n', ''],
    ['port: 443\n', 'port: 444\n'],
  ];
  const seen = new Map([[hexOf(FULL), 'nothing changed']]);
  for (const [from, to] of changes) {
    const changed = hexOf(FULL.replace(from, to));
    assert.equal(seen.get(changed), undefined, `${from} -> ${to}`);
    seen.set(changed, `${from} -> ${to}`);
  }
});
