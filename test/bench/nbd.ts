import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdtemp, readFile, rm } from 'node:fs/promises';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { program } from '../scenario/nbd/program.ts';

// npm run bench:nbd [-- SECONDS ROUNDS]: our server and nbdkit's memory plugin, each over a unix socket, asked by fio
// in turn within one run. Ratios hold on a busy machine, where the figures themselves do not; the CPU column counts
// the server's own time, and is the steadier of the two.
const [seconds = '1', rounds = '3'] = process.argv.slice(2);
const SIZE_BYTES = 256 * 1024 * 1024;
/** USER_HZ of every Linux that Node runs on. */
const TICK_US = 10_000;

interface Workload {
  readonly name: string;
  readonly fio: readonly string[];
}

const WORKLOADS: readonly Workload[] = [
  { name: '4 KiB random read, depth 1', fio: ['--rw=randread', '--bs=4k', '--iodepth=1'] },
  { name: '4 KiB random read, depth 64', fio: ['--rw=randread', '--bs=4k', '--iodepth=64'] },
  { name: '4 KiB random write, depth 1', fio: ['--rw=randwrite', '--bs=4k', '--iodepth=1'] },
  { name: '4 KiB random write, depth 64', fio: ['--rw=randwrite', '--bs=4k', '--iodepth=64'] },
  { name: '4 KiB write and flush', fio: ['--rw=randwrite', '--bs=4k', '--iodepth=1', '--fsync=1'] },
  { name: '1 MiB sequential read, depth 4', fio: ['--rw=read', '--bs=1m', '--iodepth=4'] },
  { name: '1 MiB sequential write, depth 4', fio: ['--rw=write', '--bs=1m', '--iodepth=4'] },
];

interface Server {
  readonly name: string;
  readonly socket: string;
  readonly process: ChildProcess;
}

interface Sample {
  readonly perSecond: number;
  readonly mibPerSecond: number;
  readonly cpuUsPerRequest: number;
}

const folder = await mkdtemp(join(tmpdir(), 'postern-bench-nbd-'));
const servers = [await startPostern(), await startNbdkit()];
try {
  for (const { socket } of servers) await fio(socket, ['--rw=write', '--bs=1m', '--iodepth=4'], false);
  const load = loadavg()[0]?.toFixed(1);
  print(`${availableParallelism()} cores, load ${load} before, ${rounds} rounds of ${seconds} s, medians`);
  print(`${'workload'.padEnd(34)}${'postern'.padEnd(28)}${'nbdkit memory'.padEnd(28)}ratio   CPU ratio`);
  for (const workload of WORKLOADS) print(row(workload.name, await measure(workload)));
} finally {
  for (const server of servers) {
    const exited = once(server.process, 'exit');
    server.process.kill('SIGTERM');
    await exited;
  }
  await rm(folder, { recursive: true });
}

/** The servers take turns, so that what else the machine does falls on both. */
async function measure(workload: Workload): Promise<Sample[]> {
  const samples: Sample[][] = servers.map(() => []);
  for (let round = 0; round < Number(rounds); round += 1) {
    for (const [index, server] of servers.entries()) {
      const before = await cpuTicks(server);
      const { requests, bytes, elapsedMs } = await fio(server.socket, workload.fio, true);
      const ticks = (await cpuTicks(server)) - before;
      samples[index]?.push({
        perSecond: (requests * 1000) / elapsedMs,
        mibPerSecond: (bytes * 1000) / elapsedMs / 2 ** 20,
        cpuUsPerRequest: (ticks * TICK_US) / requests,
      });
    }
  }
  return samples.map((runs) => ({
    perSecond: median(runs.map((sample) => sample.perSecond)),
    mibPerSecond: median(runs.map((sample) => sample.mibPerSecond)),
    cpuUsPerRequest: median(runs.map((sample) => sample.cpuUsPerRequest)),
  }));
}

function row(name: string, [ours, theirs]: readonly Sample[]): string {
  if (ours === undefined || theirs === undefined) throw new Error('two servers are compared');
  const cell = ({ perSecond, mibPerSecond, cpuUsPerRequest }: Sample) => {
    const rate = name.includes('MiB') ? `${mibPerSecond.toFixed(0)} MiB/s` : `${perSecond.toFixed(0)}/s`;
    return `${rate}, ${cpuUsPerRequest.toFixed(1)} us CPU`.padEnd(28);
  };
  const ratio = (ours.perSecond / theirs.perSecond).toFixed(2);
  const cpuRatio = (ours.cpuUsPerRequest / theirs.cpuUsPerRequest).toFixed(2);
  return `${name.padEnd(34)}${cell(ours)}${cell(theirs)}${ratio.padEnd(8)}${cpuRatio}`;
}

async function startPostern(): Promise<Server> {
  const socket = join(folder, 'postern.sock');
  const script = join(import.meta.dirname, '../guest/nbd/serve-memory.ts');
  const args = [script, socket, String(SIZE_BYTES)];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  await untilThere(socket);
  return { name: 'postern', socket, process: child };
}

async function startNbdkit(): Promise<Server> {
  const socket = join(folder, 'nbdkit.sock');
  const args = ['--foreground', '--unix', socket, 'memory', String(SIZE_BYTES)];
  const child = spawn('nbdkit', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  await untilThere(socket);
  return { name: 'nbdkit', socket, process: child };
}

async function untilThere(path: string): Promise<void> {
  const there = () =>
    access(path).then(
      () => true,
      () => false,
    );
  while (!(await there())) await new Promise((resolve) => setTimeout(resolve, 20));
}

interface FioTotals {
  readonly requests: number;
  readonly bytes: number;
  readonly elapsedMs: number;
}

/** Once over the whole device, or for the time of a round. */
async function fio(socket: string, workload: readonly string[], timed: boolean): Promise<FioTotals> {
  const output = join(folder, 'fio.json');
  const common = ['--name=bench', '--ioengine=nbd', `--uri=nbd+unix:///?socket=${socket}`];
  const extent = [`--size=${SIZE_BYTES}`, ...(timed ? ['--time_based', `--runtime=${seconds}`] : [])];
  await program('fio', ...common, ...workload, ...extent, '--output-format=json', `--output=${output}`);
  const text = await readFile(output, 'utf8');
  const parsed = JSON.parse(text.slice(text.indexOf('{'))) as {
    jobs: [Record<'read' | 'write', { total_ios: number; io_bytes: number; runtime: number }>];
  };
  const { read, write } = parsed.jobs[0];
  return {
    requests: read.total_ios + write.total_ios,
    bytes: read.io_bytes + write.io_bytes,
    elapsedMs: Math.max(read.runtime, write.runtime),
  };
}

/** User and system time of a process: fields 14 and 15 of proc(5), counted after the name in parentheses. */
async function cpuTicks({ process: { pid } }: Server): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
  return Number(fields[11]) + Number(fields[12]);
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
