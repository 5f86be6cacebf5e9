import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAddress } from '../../shared/policy/address.ts';
import { compilePolicy } from '../../shared/policy/compile.ts';
import { type Decision, decide } from '../../shared/policy/decide.ts';
import { ANY_MODE } from '../../shared/policy/port-table.ts';
import { PrefixIndex } from '../../shared/policy/prefix-index.ts';
import { fuzzRounds, fuzzSeed, SeededRandom } from '../fuzz/fuzz.ts';
import { decideNaively, type Verdict } from './naive.ts';
import { randomDestination, randomLeases, randomPolicy } from './random-policy.ts';

const DESTINATIONS_PER_POLICY = 40;

test('the index decides what a reading of the rules one by one decides: verdict, rule and reason', () => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  const seen = new Map<string, number>();
  for (let round = 0; round < fuzzRounds(400); round += 1) {
    const policy = randomPolicy(random);
    const compiled = compilePolicy(policy);
    for (let count = 0; count < DESTINATIONS_PER_POLICY; count += 1) {
      const destination = randomDestination(random);
      const leases = random.below(2) === 0 ? undefined : randomLeases(random);
      const view = leases === undefined ? undefined : { namesOf: () => leases };
      const fast = decide(compiled, destination, view);
      const place = `SEED=${seed} round ${round}: ${JSON.stringify({ destination, leases, rules: policy.egress })}`;
      const slow = decideNaively(policy.egress, destination, leases);
      assert.deepEqual(comparable(fast), slowly(slow), place);
      seen.set(fast.reason, (seen.get(fast.reason) ?? 0) + 1);
    }
  }
  // A generator that never reaches a branch proves nothing about it.
  for (const reason of REACHED) assert.ok(seen.has(reason), `SEED=${seed}: no destination was ${reason}`);
});

const REACHED = [
  'rule',
  'lease',
  'no-rule',
  'no-lease',
  'port-not-allowed',
  'protocol-not-allowed',
  'denied-by-rule',
  'special-address',
  'dnssec-bogus',
  'dnssec-indeterminate',
  'dnssec-insecure',
  'dnssec-unknown',
];

function comparable(decision: Decision): unknown {
  const { verdict, reason, rule, name } = decision;
  const serverNames = decision.verdict === 'allow' ? decision.serverNames : undefined;
  return { verdict, reason, rule, name: verdict === 'allow' ? name : undefined, serverNames };
}

function slowly({ verdict, reason, rule, name, serverNames }: Verdict): unknown {
  return { verdict, reason, rule, name, serverNames };
}

test('nested prefixes: joined tables, none joined, and some joined answer alike', () => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  for (let round = 0; round < fuzzRounds(150); round += 1) {
    const { allow } = randomPolicy(random).egress;
    const claims = allow.map((rule, index) => ({ rule, index }));
    for (const family of [4, 6] as const) {
      const indices = [0, random.below(40), undefined].map(
        (budget) => new PrefixIndex(claims, family, new Map(), budget),
      );
      for (let count = 0; count < 20; count += 1) {
        const { protocol, port, address = '192.0.2.1' } = randomDestination(random);
        const parsed = parseAddress(address);
        if (parsed === undefined || parsed.family !== family) continue;
        for (const minLength of [0, 16]) {
          const answers: number[] = indices.map((index) =>
            index.lookup(parsed, protocol, port, ANY_MODE, minLength),
          );
          assert.equal(
            new Set(answers).size,
            1,
            `SEED=${seed} round ${round}: ${address} ${protocol} ${port} ${answers}`,
          );
        }
      }
    }
  }
});
