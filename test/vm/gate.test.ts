import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runInVm } from './run.ts';

/** Some 60 s on two idle cores; the emulated machine shares them with whatever else runs. */
const TIMEOUT_MS = 600_000;

test('over real AF_VSOCK: an allowed flow, refused ones, an inbound one, and a rogue that gets nowhere', async (t) => {
  const command = ['node', '--test-reporter=spec', 'test/vm/inside/gate.ts'];
  const { exitCode, output } = await runInVm({ command, timeoutMs: TIMEOUT_MS });
  for (const line of output.trim().split('\n')) t.diagnostic(line);
  assert.equal(exitCode, 0, output);
});
