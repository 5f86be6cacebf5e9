import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** Two at a time fill two cores: the VM and the scenarios are more than one process each. */
const CONCURRENCY = Math.max(1, Math.min(2, availableParallelism()));
/** A test that hangs is named and failed. The slowest, in the VM, has its own shorter deadline. */
const TEST_TIMEOUT_MS = 900_000;

/** Runs all `test/**\/*.test.ts`, or those whose path contains one of the arguments: `npm test -- vm house`. */
const repository = join(import.meta.dirname, '..');
const wanted = process.argv.slice(2);
const files = globSync('test/**/*.test.ts', { cwd: repository })
  .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
  .sort();

if (files.length === 0) {
  process.stderr.write(`no test file has ${wanted.join(' or ')} in its path\n`);
  process.exitCode = 2;
} else {
  const flags = [
    `--import=${pathToFileURL(join(import.meta.dirname, 'deadline.ts'))}`,
    `--test-concurrency=${CONCURRENCY}`,
    `--test-timeout=${TEST_TIMEOUT_MS}`,
    '--test-reporter=spec',
  ];
  const child = spawn(process.execPath, ['--test', ...flags, ...files], {
    cwd: repository,
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  child.on('exit', (code) => {
    process.exitCode = code ?? 1;
  });
}
