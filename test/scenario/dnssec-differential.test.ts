import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { fuzzRounds, fuzzSeed } from '../fuzz/fuzz.ts';

const WORKER = join(import.meta.dirname, 'dnssec/differential.ts');
/** A namespace of processes too, so that no server outlives the test; named listens only where an address is. */
const NAMESPACE = ['-n', '-p', '-f', '--kill-child=KILL', '--mount-proc'];
const INSIDE = 'ip link set lo up; ip address add 127.0.0.2/8 dev lo; exec "$@"';

test('a signed hierarchy on real servers, through unbound and through Knot Resolver: our verdict is the oracle’s', async () => {
  const seed = fuzzSeed();
  const rounds = fuzzRounds(1_500);
  const command = [process.execPath, WORKER, String(seed), String(rounds)];
  const { stdout } = await promisify(execFile)(
    'unshare',
    [...NAMESPACE, 'sh', '-c', INSIDE, 'sh', ...command],
    {
      maxBuffer: 64 * 1024 * 1024,
    },
  );
  const lines = stdout.trim().split('\n');
  const last = JSON.parse(lines.pop() ?? '{}') as { done?: number; states?: Record<string, number> };
  assert.equal(last.done, rounds);
  assert.deepEqual(lines, [], `SEED=${seed}`);
  // All three outcomes were among them.
  for (const state of ['secure', 'insecure', 'bogus']) assert.ok((last.states?.[state] ?? 0) > 0, state);
});
