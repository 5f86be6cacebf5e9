import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runInVm } from './run.ts';

/** Some two minutes on two idle cores; the emulated machine shares them with whatever else runs. */
const TIMEOUT_MS = 600_000;

test('file systems live on block devices of a real kernel over the NBD server, and the demo’s as well', async (t) => {
  const files = ['test/vm/inside/nbd.ts', 'test/vm/inside/demo.ts'];
  const command = ['node', '--test', '--test-isolation=none', '--test-reporter=spec', ...files];
  const modules = ['nbd', 'btrfs', 'ext4'];
  const { exitCode, output } = await runInVm({ command, modules, timeoutMs: TIMEOUT_MS });
  for (const line of output.trim().split('\n')) t.diagnostic(line);
  assert.equal(exitCode, 0, output);
});
