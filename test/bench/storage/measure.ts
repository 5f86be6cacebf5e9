import { readFile } from 'node:fs/promises';
import { program } from '../../scenario/nbd/program.ts';

export interface Workload {
  readonly name: string;
  readonly fio: readonly string[];
  readonly unit: 'MiB/s' | 'op/s';
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
  // A flush drains fio's queue: sixteen writers that flush are sixteen jobs, not one of depth 16.
  ...[1, 16].map((jobs): Workload => {
    const fio = ['--rw=randwrite', '--bs=4k', '--iodepth=1', '--fsync=1', `--numjobs=${jobs}`];
    return { name: `write + flush, 4 KiB, ${jobs} at a time`, fio, unit: 'op/s' };
  }),
];

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
  const what = [...workload.fio, `--size=${sizeBytes}`, ...time, '--group_reporting', '--output-format=json'];
  // Data that nobody can compress or store once: each buffer is new.
  const text = await program('fio', ...where, ...what, '--refill_buffers', '--randrepeat=0');
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
