import { compilePolicy } from '../../shared/policy/compile.ts';
import { type Decision, decide } from '../../shared/policy/decide.ts';
import { parsePolicy } from '../../shared/policy/policy.ts';
import type { Destination, Policy } from '../../shared/policy/types.ts';
import { SeededRandom } from '../fuzz/fuzz.ts';

/**
 * Decisions per measurement, and measurements of which the median is printed. Some kernels count CPU time in ticks of
 * 4 ms: over so many decisions that is 40 ns each.
 */
const DECISIONS = 100_000;
const MEASUREMENTS = 11;
const RULES = [10, 1_000, 10_000];

interface Case {
  readonly title: string;
  readonly rule: (index: number) => Record<string, unknown>;
  readonly destination: (random: SeededRandom, rules: number) => Destination;
  readonly expect: 'allow' | 'deny' | 'both';
}

const octets = (index: number): string => `${(index >> 8) & 255}.${index & 255}`;
const secure = { protocol: 'tcp', dnssec: 'secure' } as const;

const CASES: readonly Case[] = [
  {
    title: 'exact names, name asked',
    rule: (index) => ({ fqdn: `host${index}.example.com`, ports: 443 }),
    destination: (random, rules) => ({
      ...secure,
      port: 443,
      name: `host${random.below(rules)}.example.com`,
    }),
    expect: 'allow',
  },
  {
    title: 'mixed names and blocks, name and address asked',
    rule: (index) => {
      if (index % 2 === 0) return { cidr: `10.${octets(index)}.0/24`, ports: [5432, '6000-6010'] };
      return { fqdn: `${['', '*.', '**.'][index % 3]}zone${index}.example.com`, ports: [443, '8000-8100'] };
    },
    destination: (random, rules) => ({
      ...secure,
      port: random.pick([443, 8050, 22]),
      name: `a.zone${random.below(rules)}.example.com`,
      address: `198.51.${octets(random.below(65_536))}`,
    }),
    expect: 'both',
  },
  {
    title: 'IPv4 blocks, address asked',
    rule: (index) => ({ cidr: `10.${octets(index)}.0/24`, ports: '1-65535' }),
    destination: (random, rules) => ({
      protocol: 'tcp',
      port: 443,
      address: `10.${octets(random.below(rules))}.7`,
    }),
    expect: 'allow',
  },
  {
    title: 'IPv6 blocks, address asked',
    rule: (index) => ({ cidr: `2001:db8:${index.toString(16)}::/48`, ports: 443 }),
    destination: (random, rules) => ({
      protocol: 'tcp',
      port: 443,
      address: `2001:db8:${random.below(rules).toString(16)}::7`,
    }),
    expect: 'allow',
  },
  {
    title: 'worst: every rule names the same name, other port',
    rule: (index) => ({ fqdn: 'api.example.com', ports: 10_000 + index }),
    destination: (random) => ({ ...secure, port: 1 + random.below(65_535), name: 'api.example.com' }),
    expect: 'both',
  },
  {
    title: 'worst: nested IPv6 blocks, all lengths, many ports',
    rule: (index) => ({ cidr: `${V6_CHAIN[index % V6_CHAIN.length]}`, ports: 1 + index * 5 }),
    destination: (random) => ({ protocol: 'tcp', port: 1 + random.below(65_535), address: '2001:db8::' }),
    expect: 'both',
  },
  {
    title: 'worst: longest name under a deep wildcard, embedded IPv4',
    rule: (index) => ({ fqdn: `**.${'a.'.repeat(20)}zone${index}.example.com`, ports: 443 }),
    destination: (random, rules) => ({
      ...secure,
      port: 443,
      name: `${'a.'.repeat(115)}zone${random.below(Math.min(rules, 1000))}.example.com`.slice(-253),
      address: '2002:c633:6407::1',
    }),
    expect: 'allow',
  },
];
const V6_CHAIN = Array.from({ length: 97 }, (_, index) => `2001:db8::/${index + 32}`);

function policyOf({ rule }: Case, rules: number): Policy {
  const allow = Array.from({ length: rules }, (_, index) => rule(index));
  const deny = [{ cidr: '192.0.2.0/24' }, { fqdn: '**.denied.example.com' }];
  return parsePolicy(JSON.stringify({ version: 1, egress: { allow, deny } }), 'bench');
}

/** Of this thread alone, so that other load on the machine does not count. */
function cpuMicroseconds(): number {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}

function measure(benchCase: Case, rules: number): { medianNs: number; fastestNs: number; compileMs: number } {
  const policy = policyOf(benchCase, rules);
  const began = performance.now();
  const compiled = compilePolicy(policy);
  const compileMs = performance.now() - began;
  const random = new SeededRandom(rules);
  const destinations = Array.from({ length: 1000 }, () => benchCase.destination(random, rules));
  // A name off the wire is one flat string; these were put together from pieces.
  for (const to of destinations)
    if (to.name !== undefined) Object.assign(to, { name: Buffer.from(to.name).toString() });
  const verdicts = new Set<Decision['verdict']>();
  const samplesNs: number[] = [];
  for (let round = 0; round < MEASUREMENTS; round += 1) {
    const start = cpuMicroseconds();
    for (let count = 0; count < DECISIONS; count += 1) {
      const destination = destinations[count % destinations.length];
      if (destination !== undefined) verdicts.add(decide(compiled, destination).verdict);
    }
    samplesNs.push(((cpuMicroseconds() - start) * 1000) / DECISIONS);
  }
  const found = verdicts.size === 2 ? 'both' : [...verdicts][0];
  if (benchCase.expect !== 'both' && found !== benchCase.expect)
    throw new Error(`${benchCase.title}: ${found}`);
  samplesNs.sort((a, b) => a - b);
  return { medianNs: samplesNs[MEASUREMENTS >> 1] ?? 0, fastestNs: samplesNs[0] ?? 0, compileMs };
}

process.stdout.write(
  `CPU ns per decision: median of ${MEASUREMENTS} runs of ${DECISIONS} (fastest run); compile ms\n`,
);
for (const benchCase of CASES) {
  process.stdout.write(`${benchCase.title}\n`);
  for (const rules of RULES) {
    const { medianNs, fastestNs, compileMs } = measure(benchCase, rules);
    const row = [`${rules}`.padStart(8), `rules ${medianNs.toFixed(0).padStart(6)}`];
    process.stdout.write(`${row.join(' ')} (${fastestNs.toFixed(0)}) ns; ${compileMs.toFixed(1)} ms\n`);
  }
}
