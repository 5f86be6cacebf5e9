import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runInVm } from './run.ts';

/** Some 60 s on two idle cores; the emulated machine shares them with whatever else runs. */
const TIMEOUT_MS = 600_000;

test('file systems live on block devices of a real kernel over the NBD server', async (t) => {
  const command = ['node', '--test-reporter=spec', 'test/vm/inside/nbd.ts'];
  const modules = ['nbd', 'btrfs', 'ext4'];
  const { exitCode, output } = await runInVm({ command, modules, timeoutMs: TIMEOUT_MS });
  for (const line of output.trim().split('\n')) t.diagnostic(line);
  assert.equal(exitCode, 0, output);
});
