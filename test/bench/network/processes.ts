import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Task } from './load.ts';

const CLOCK_TICKS_PER_SECOND = 100;
const PAGE_BYTES = 4096;
const started: ChildProcess[] = [];

/** A process that lives until `stopAll`; its standard error is shown when it fails. */
export function run(words: readonly string[], input: 'pipe' | 'ignore' = 'ignore'): ChildProcess {
  const [program = '', ...rest] = words;
  const child = spawn(program, rest, {
    stdio: [input, 'pipe', process.env['DEBUG'] === '1' ? 'inherit' : 'ignore'],
  });
  started.push(child);
  return child;
}

export async function firstLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error('a process without output');
  const lines = createInterface({ input: child.stdout });
  const [line] = (await Promise.race([
    once(lines, 'line'),
    once(child, 'exit').then(() => Promise.reject(new Error(`${child.spawnargs.join(' ')} ended early`))),
  ])) as [string];
  return line;
}

const LOAD = new URL('./load.ts', import.meta.url).pathname;

export function loadWords(task: Task): readonly string[] {
  return [process.execPath, LOAD, JSON.stringify(task)];
}

/** Runs one measurement to its end. `prefix`: the command that enters a namespace. */
export async function measure<T>(task: Task, prefix: readonly string[] = []): Promise<T> {
  const child = run([...prefix, ...loadWords(task)]);
  const ended = once(child, 'exit');
  const line = await firstLine(child);
  await ended;
  return JSON.parse(line) as T;
}

export async function stopAll(): Promise<void> {
  await Promise.all(
    started.map(async (child) => {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    }),
  );
}

/** A flow takes two descriptors on each side; what the machine lets a process have bounds what can be measured. */
export function flowsAtMost(): number {
  const limits = readFileSync('/proc/self/limits', 'utf8');
  const hard = /^Max open files +\S+ +(\d+)/m.exec(limits)?.[1];
  return Math.floor((Number(hard ?? 1024) - 100) / 2);
}

/** User and system time of the processes and all that descends from them, ended children included. */
export function cpuSeconds(children: readonly ChildProcess[]): number {
  const parents = new Map<number, number>();
  const ticks = new Map<number, number>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const fields = statOf(entry);
    if (fields === undefined) continue;
    parents.set(Number(entry), Number(fields[1]));
    ticks.set(
      Number(entry),
      fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0),
    );
  }
  const roots = new Set(children.map((child) => child.pid));
  const counts = (pid: number | undefined): boolean =>
    pid !== undefined && pid > 1 && (roots.has(pid) || counts(parents.get(pid)));
  let total = 0;
  for (const [pid, count] of ticks) if (counts(pid)) total += count;
  return total / CLOCK_TICKS_PER_SECOND;
}

/** The fields of /proc/PID/stat behind the program's name (proc(5)); undefined when the process is gone. */
function statOf(pid: string): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
}

export function residentBytes(child: ChildProcess): number {
  return Number(readFileSync(`/proc/${child.pid}/statm`, 'utf8').split(' ')[1]) * PAGE_BYTES;
}
