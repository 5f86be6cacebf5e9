import * as v from 'valibot';
import { policySchema } from '../../shared/policy/policy.ts';
import type { DnssecState, Lease, Policy } from '../../shared/policy/types.ts';
import type { SeededRandom } from '../fuzz/fuzz.ts';
import type { PlainDestination } from './naive.ts';

const LABELS = ['a', 'b', 'c', '_x'];
const ZONES = ['example.com', 'b.example.com', 'example.org', 'a.internal'];
const STATES: readonly (DnssecState | 'unknown')[] = [
  'secure',
  'insecure',
  'bogus',
  'indeterminate',
  'unknown',
];

/** Networks and addresses that nest, neighbour and embed each other. */
const ADDRESSES = [
  '10.0.0.0',
  '10.1.0.0',
  '10.1.2.0',
  '10.1.2.3',
  '127.0.0.1',
  '169.254.169.254',
  '192.0.2.1',
  '192.0.2.128',
  '198.51.100.7',
  '255.255.255.255',
  '0.0.0.0',
  '::1',
  '2001:db8::1',
  '2001:db8:0:1::',
  '2001:db8:ffff::',
  'fd00:ec2::254',
  'fe80::1',
  '64:ff9b::10.1.2.3',
  '64:ff9b::192.0.2.1',
  '64:ff9b:1:a01:2:300::',
  '2002:a01:203::1',
  '2001:0:a01:203::f5fe:fdfc',
  '2001:db8::5efe:10.1.2.3',
  '::10.1.2.3',
  '::ffff:10.1.2.3',
  '::ffff:0:10.1.2.3',
  'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
];
const PORTS = [1, 22, 80, 443, 444, 8000, 8050, 8100, 65_535];

export function randomPolicy(random: SeededRandom): Policy {
  const rules = (effect: 'allow' | 'deny', limit: number) =>
    Array.from({ length: random.below(limit) }, () => randomRule(random, effect));
  // Straight through the schema: rules that shadow each other are refused in files and wanted here.
  return v.parse(policySchema, { version: 1, egress: { allow: rules('allow', 14), deny: rules('deny', 4) } });
}

function randomRule(random: SeededRandom, effect: 'allow' | 'deny'): Record<string, unknown> {
  const protocol = random.pick(['', 'tcp', 'udp', ['tcp', 'udp'], ['tcp', 'icmp'], 'icmp']);
  const ports = Array.from({ length: 1 + random.below(3) }, () => randomPorts(random));
  const place = randomPlace(random, effect, protocol);
  return {
    ...place,
    ...(protocol === '' ? {} : { protocol }),
    ...(protocol === 'icmp' || (effect === 'deny' && random.below(2) === 0)
      ? {}
      : { ports: [...new Set(ports)] }),
  };
}

function randomPlace(random: SeededRandom, effect: string, protocol: unknown): Record<string, unknown> {
  if (random.below(2) === 0) return { cidr: randomPrefix(random) };
  const fqdn = random.pick(['', '', '*.', '**.']) + randomName(random);
  if (effect === 'deny') return { fqdn };
  const tcp = protocol === '' || protocol === 'tcp';
  return {
    fqdn,
    dnssec: random.pick(['require', 'validate', 'validate', 'off']),
    ...(tcp && random.below(3) === 0 ? { tls: 'sni' } : {}),
  };
}

function randomPorts(random: SeededRandom): number | string {
  const [a, b] = [random.pick(PORTS), random.pick(PORTS)];
  return random.below(2) === 0 || a === b ? a : `${Math.min(a, b)}-${Math.max(a, b)}`;
}

function randomPrefix(random: SeededRandom): string {
  for (;;) {
    const address = random.pick(ADDRESSES);
    const length = random.below(address.includes(':') ? 129 : 33);
    const text = `${address}/${length}`;
    const rule = { cidr: text, ports: 1 };
    // Most lengths leave host bits set; try until one does not.
    if (v.safeParse(policySchema, { version: 1, egress: { allow: [rule] } }).success) return text;
  }
}

function randomName(random: SeededRandom): string {
  const labels = Array.from({ length: random.below(3) }, () => random.pick(LABELS));
  return [...labels, random.pick(ZONES)].join('.');
}

export function randomDestination(random: SeededRandom): PlainDestination {
  const protocol = random.pick(['tcp', 'tcp', 'udp', 'icmp'] as const);
  const kind = random.below(3);
  const dnssec = random.pick(STATES);
  return {
    protocol,
    port: protocol === 'icmp' ? 0 : random.pick(PORTS),
    ...(kind < 2 ? { name: randomName(random) } : {}),
    ...(kind > 0 ? { address: random.pick(ADDRESSES) } : {}),
    ...(kind < 2 && dnssec !== 'unknown' ? { dnssec } : {}),
  };
}

export function randomLeases(random: SeededRandom): Lease[] {
  return Array.from({ length: random.below(4) }, () => {
    const dnssec = random.pick(STATES);
    return { name: randomName(random), ...(dnssec === 'unknown' ? {} : { dnssec }) };
  });
}
