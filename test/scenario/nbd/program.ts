import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const execute = promisify(execFile);
/** Debian's libnbd for Python belongs to Debian's Python, whichever else comes first in PATH. */
export const PYTHON = '/usr/bin/python3';
const PROGRAM_TIMEOUT_MS = 120_000;

/** Runs a program to its end beside this process's event loop. Answers its standard output; rejects if it fails. */
export async function program(name: string, ...args: readonly string[]): Promise<string> {
  try {
    return (await execute(name, args, { timeout: PROGRAM_TIMEOUT_MS, maxBuffer: 64 * 1024 * 1024 })).stdout;
  } catch (cause) {
    const output = cause as { stdout?: string; stderr?: string };
    throw new Error(`${name} ${args.join(' ')}\n${output.stdout}\n${output.stderr}`, { cause });
  }
}

/** A script in libnbd's shell, where `h` is connected to `uri`. */
export function nbdShell(uri: string, script: string): Promise<string> {
  const lines = ['h.add_meta_context("base:allocation")', `h.connect_uri("${uri}")`, script];
  return program(PYTHON, '-m', 'nbd', '-c', lines.join('\n'));
}
