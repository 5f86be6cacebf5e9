import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runInVm } from './run.ts';

/** Some minutes on two idle cores; the emulated machine shares them with whatever else runs. */
const TIMEOUT_MS = 1_200_000;

test('a volume behind AF_VSOCK carries the file systems of a real kernel, through kill -9', async (t) => {
  const command = ['node', '--test-reporter=spec', 'test/vm/inside/volume.ts'];
  const modules = ['vsock_loopback', 'nbd', 'btrfs', 'ext4'];
  const { exitCode, output } = await runInVm({ command, modules, timeoutMs: TIMEOUT_MS });
  for (const line of output.trim().split('\n')) t.diagnostic(line);
  assert.equal(exitCode, 0, output);
});
