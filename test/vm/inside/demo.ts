import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import type { DemoResult } from '../../../shared/demo/command.ts';
import { REPOSITORY } from '../kernel.ts';
import { requireVm } from './guard.ts';

requireVm();

const run = promisify(execFile);
const POSTERN = `${REPOSITORY}/shared/cli/postern.ts`;
/** Eight programs one after the other, each of which Node starts some twenty times slower here. */
const TIMEOUT_MS = 400_000;
/** The file that the demo writes before it kills the agent, and reads after it. */
const FILE_BYTES = 1024 * 1024;
const SECTOR_BYTES = 512;

describe('the demo where the kernel has nbd', () => {
  it('has its ext4 on a device of the kernel, through kill -9, and gives it back', async () => {
    const before = transferred();
    const { stdout } = await run(process.execPath, [POSTERN, 'demo', '--json'], { timeout: TIMEOUT_MS });
    const results = JSON.parse(stdout) as DemoResult[];
    assert.deepEqual(
      results.filter(({ ok }) => !ok),
      [],
    );
    const [disk, crash, noise] = results.slice(-3);
    assert.equal(disk?.step, 'disk');
    assert.match(disk?.target ?? '', /^ext4 on \/dev\/nbd\d+$/);
    assert.equal(disk?.result, `recipe.txt, ${FILE_BYTES} bytes written and synced`);
    assert.deepEqual(
      { step: crash?.step, result: crash?.result },
      { step: 'crash', result: `the same ${FILE_BYTES} bytes` },
    );
    assert.equal(noise?.step, 'noise');
    // The kernel's own count, of a cache that did not outlive the device.
    const after = transferred();
    assert.ok(after.writtenBytes - before.writtenBytes >= FILE_BYTES, JSON.stringify({ before, after }));
    assert.ok(after.readBytes - before.readBytes >= FILE_BYTES, JSON.stringify({ before, after }));
    assert.deepEqual(
      devices().filter((name) => existsSync(`/sys/block/${name}/pid`)),
      [],
    );
    assert.doesNotMatch(readFileSync('/proc/self/mounts', 'utf8'), /nbd|postern-demo/);
  });
});

function devices(): string[] {
  return readdirSync('/sys/block').filter((name) => /^nbd\d+$/.test(name));
}

/** By all devices together since the kernel's start: Documentation/block/stat.rst, fields 3 and 7. */
function transferred(): { readBytes: number; writtenBytes: number } {
  const sums = { readBytes: 0, writtenBytes: 0 };
  for (const name of devices()) {
    const fields = readFileSync(`/sys/block/${name}/stat`, 'utf8').trim().split(/\s+/);
    sums.readBytes += Number(fields[2]) * SECTOR_BYTES;
    sums.writtenBytes += Number(fields[6]) * SECTOR_BYTES;
  }
  return sums;
}
