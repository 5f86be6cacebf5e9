import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** A namespace of processes too, so that no server outlives the test; named listens only where an address is. */
const NAMESPACE = ['-n', '-p', '-f', '--kill-child=KILL', '--mount-proc'];
const INSIDE = 'ip link set lo up; ip address add 127.0.0.2/8 dev lo; exec "$@"';
const OUTPUT_MAX_BYTES = 64 * 1024 * 1024;

/** Runs a worker of this folder in network and process namespaces of its own; gives what it printed, a value a line. */
export async function runAlone(worker: string, ...args: readonly string[]): Promise<unknown[]> {
  const command = [process.execPath, join(import.meta.dirname, worker), ...args];
  // What the worker leaves goes when its servers are gone: until then they may still write there.
  const folder = mkdtempSync(join(tmpdir(), 'postern-alone-'));
  try {
    const { stdout } = await promisify(execFile)(
      'unshare',
      [...NAMESPACE, 'sh', '-c', INSIDE, 'sh', ...command],
      { maxBuffer: OUTPUT_MAX_BYTES, env: { ...process.env, TMPDIR: folder } },
    );
    return stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
