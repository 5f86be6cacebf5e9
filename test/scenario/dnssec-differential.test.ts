import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzRounds, fuzzSeed } from '../fuzz/fuzz.ts';
import { runAlone } from './dnssec/namespace.ts';

test('a signed hierarchy on real servers, through unbound and through Knot Resolver: our verdict is the oracle’s', async () => {
  const seed = fuzzSeed();
  const rounds = fuzzRounds(1_500);
  const lines = await runAlone('differential.ts', String(seed), String(rounds));
  const last = lines.pop() as { done?: number; states?: Record<string, number> };
  assert.equal(last.done, rounds);
  assert.deepEqual(lines, [], `SEED=${seed}`);
  // All three outcomes were among them.
  for (const state of ['secure', 'insecure', 'bogus']) assert.ok((last.states?.[state] ?? 0) > 0, state);
});
