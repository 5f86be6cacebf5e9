import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

/** Ten GiB at 17 MiB/s. */
const TOOL_TIMEOUT_MS = 600_000;
const execute = promisify(execFile);

/** Runs a tool to its end; answers what it printed. */
export async function tool(name: string, args: readonly string[]): Promise<string> {
  return (await execute(name, args, { timeout: TOOL_TIMEOUT_MS, maxBuffer: 64 * 1024 * 1024 })).stdout;
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** What stays in every cache of ours, and is read once before it is measured. */
const CACHED_BYTES = 8 * 1024 * 1024;

export interface Workload {
  readonly name: string;
  readonly fio: readonly string[];
  readonly unit: 'MiB/s' | 'op/s';
  /** Bytes that it keeps to, from the start of the device; all of it by default. */
  readonly withinBytes?: number;
}

export const WORKLOADS: readonly Workload[] = [
  {
    name: 'sequential write, 1 MiB, depth 4, flush each 64 MiB',
    fio: ['--rw=write', '--bs=1m', '--iodepth=4', '--fsync=64'],
    unit: 'MiB/s',
  },
  { name: 'sequential read, 1 MiB, depth 4', fio: ['--rw=read', '--bs=1m', '--iodepth=4'], unit: 'MiB/s' },
  ...[1, 16].flatMap((depth): Workload[] => {
    const common = ['--bs=4k', `--iodepth=${depth}`];
    const unit = 'op/s';
    return [
      { name: `random read, 4 KiB, depth ${depth}`, fio: ['--rw=randread', ...common], unit },
      { name: `random write, 4 KiB, depth ${depth}`, fio: ['--rw=randwrite', ...common], unit },
    ];
  }),
  ...[1, 16].map((depth): Workload => {
    const fio = ['--rw=randread', '--bs=4k', `--iodepth=${depth}`];
    return {
      name: `cached random read, 4 KiB, depth ${depth}`,
      fio,
      unit: 'op/s',
      withinBytes: CACHED_BYTES,
    };
  }),
  // A flush drains fio's queue: sixteen writers that flush are sixteen jobs, not one of depth 16.
  ...[1, 16].map((jobs): Workload => {
    const fio = ['--rw=randwrite', '--bs=4k', '--iodepth=1', '--fsync=1', `--numjobs=${jobs}`];
    return { name: flushName(jobs), fio, unit: 'op/s' };
  }),
];

export function flushName(jobs: number): string {
  return `write + flush, 4 KiB, ${jobs} at a time`;
}

export interface FioTotals {
  readonly operations: number;
  readonly bytes: number;
  readonly elapsedMs: number;
}

/** Runs a workload over an NBD export for `seconds`, or once over all of it where that is undefined. */
export async function fio(
  socket: string,
  workload: Workload,
  sizeBytes: number,
  seconds: number | undefined,
): Promise<FioTotals> {
  const where = ['--name=bench', '--ioengine=nbd', `--uri=nbd+unix:///?socket=${socket}`];
  const time = seconds === undefined ? [] : ['--time_based', `--runtime=${seconds}`];
  const size = workload.withinBytes ?? sizeBytes;
  const what = [...workload.fio, `--size=${size}`, ...time, '--group_reporting', '--output-format=json'];
  // Data that nobody can compress or store once: each buffer is new.
  const text = await tool('fio', [...where, ...what, '--refill_buffers', '--randrepeat=0']);
  const parsed = JSON.parse(text.slice(text.indexOf('{'))) as {
    jobs: [Record<'read' | 'write', { total_ios: number; io_bytes: number; runtime: number }>];
  };
  const { read, write } = parsed.jobs[0];
  return {
    operations: read.total_ios + write.total_ios,
    bytes: read.io_bytes + write.io_bytes,
    elapsedMs: Math.max(read.runtime, write.runtime),
  };
}

/** USER_HZ of every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** User and system time of processes: fields 14 and 15 of proc(5), counted after the name in parentheses. */
export async function cpuSeconds(pids: readonly number[]): Promise<number> {
  let ticks = 0;
  for (const pid of pids) {
    const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / TICKS_PER_SECOND;
}

/** The most that each of the processes ever had in memory, in MiB. */
export async function peakMemoryMib(pids: readonly number[]): Promise<number[]> {
  const peaks = pids.map(async (pid) => {
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1024;
  });
  return Promise.all(peaks);
}

export function median(values: readonly number[]): number {
  return [...values].sort((left, right) => left - right)[Math.floor(values.length / 2)] ?? Number.NaN;
}
