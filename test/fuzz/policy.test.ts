import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { compilePolicy } from '../../shared/policy/compile.ts';
import { decide } from '../../shared/policy/decide.ts';
import { policyDigest } from '../../shared/policy/digest.ts';
import { parsePolicy } from '../../shared/policy/policy.ts';
import { randomDestination, randomLeases } from '../policy/random-policy.ts';
import { fuzzDecoder, fuzzRounds, fuzzSeed, mutate, SeededRandom } from './fuzz.ts';

const FOLDER = new URL('../../policies/', import.meta.url);
const HOSTILE = [
  'version: 1\negress: { allow: [{ fqdn: "**.example.com", ports: ["1-65535", 1], protocol: [tcp, udp, icmp] }] }',
  'version: 1\negress: { deny: [{ cidr: ["::/0", 0.0.0.0/0] }] }\ningress: [{ port: 1, to: "[::1]:1", from: ["::1"] }]',
  '{"version":1,"egress":{"allow":[{"ip":["::ffff:1.2.3.4","64:ff9b::1"],"ports":[1,"2-3"]}]}}',
  'a: &a [*a]\nb: *a',
  '? [complex]: key\n: - value',
  'version: 0x1\negress: null\ningress: ~',
  '"\\u0000": 1\n__proto__: { version: 1 }',
];
const CORPUS = [
  ...readdirSync(FOLDER).map((name) => readFileSync(new URL(name, FOLDER))),
  ...HOSTILE.map((text) => Buffer.from(text)),
];

test('policies: any text parses or is refused with a coded error; what parses can be asked and hashed', () => {
  fuzzDecoder('policy', CORPUS, fuzzRounds(1500), (bytes, random) => {
    const policy = parsePolicy(bytes.toString('utf8'), 'fuzz');
    const compiled = compilePolicy(policy);
    assert.equal(policyDigest(policy).length, 32);
    const leases = randomLeases(random);
    for (let count = 0; count < 5; count += 1)
      decide(compiled, randomDestination(random), { namesOf: () => leases });
  });
});

test('policies: every truncation of every example', () => {
  const seed = fuzzSeed();
  for (const text of CORPUS) {
    const step = Math.max(1, Math.floor(text.length / 60));
    for (let length = 0; length < text.length; length += step) {
      fuzzDecoder(`cut ${length} SEED=${seed}`, [text.subarray(0, length)], 1, (bytes) =>
        parsePolicy(bytes.toString('latin1'), 'cut'),
      );
    }
  }
});

test('destinations: any text gets an answer', () => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  const policy = compilePolicy(parsePolicy(CORPUS[0]?.toString() ?? '', 'first'));
  const corpus = ['api.example.com', '0x7f.1', '192.0.2.1', '64:ff9b::1', 'bücher.example', '[::1]'].map(
    (text) => Buffer.from(text),
  );
  for (let round = 0; round < fuzzRounds(20_000); round += 1) {
    const [name, address] = [mutate(random, corpus).toString(), mutate(random, corpus).toString()];
    const { verdict } = decide(policy, { protocol: 'tcp', port: random.below(65_536), name, address });
    assert.ok(verdict === 'deny' || verdict === 'allow', `SEED=${seed} ${JSON.stringify({ name, address })}`);
  }
});
