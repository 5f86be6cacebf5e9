import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requireVm } from './inside/guard.ts';
import { runInVm } from './run.ts';

/** Some 60 s on two idle cores; the emulated machine shares them with whatever else runs. */
const TIMEOUT_MS = 600_000;

test('the transport suite holds over the AF_VSOCK of a real kernel', async (t) => {
  const command = ['node', '--test-reporter=spec', 'test/vm/inside/transport.ts'];
  const { exitCode, output } = await runInVm({ command, timeoutMs: TIMEOUT_MS });
  for (const line of output.trim().split('\n')) t.diagnostic(line);
  assert.equal(exitCode, 0, output);
});

test('what is written for the VM refuses to run outside it', () => {
  assert.throws(() => requireVm(), /test VM alone/);
});
