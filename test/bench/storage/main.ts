import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { startRadosgw } from '../../s3/radosgw.ts';
import { program } from '../../scenario/nbd/program.ts';
import { nbdkitMemory, nbdkitOnS3, posternOnS3, type StorageServer, startPostern } from './servers.ts';

// npm run bench:storage [-- SECONDS ROUNDS]: whole disks over NBD, each asked by fio in turn within one run. Ours goes
// through guest, relay and parent to a directory and to radosgw, with every flush anchored; nbdkit's memory plugin is
// the ceiling, its S3 plugin the neighbour on the same radosgw.
const [seconds = '2', rounds = '1'] = process.argv.slice(2);
const SIZE_BYTES = 256 * 1024 * 1024;

interface Workload {
  readonly name: string;
  readonly fio: readonly string[];
}

const JOBS = ['--numjobs=16', '--group_reporting'];
const WORKLOADS: readonly Workload[] = [
  { name: '1 MiB sequential write, depth 4', fio: ['--rw=write', '--bs=1m', '--iodepth=4', '--end_fsync=1'] },
  { name: '1 MiB sequential read, depth 4', fio: ['--rw=read', '--bs=1m', '--iodepth=4'] },
  { name: '4 KiB random read, depth 1', fio: ['--rw=randread', '--bs=4k', '--iodepth=1'] },
  { name: '4 KiB random read, depth 16', fio: ['--rw=randread', '--bs=4k', '--iodepth=16'] },
  { name: '4 KiB random write, depth 1', fio: ['--rw=randwrite', '--bs=4k', '--iodepth=1'] },
  { name: '4 KiB random write, depth 16', fio: ['--rw=randwrite', '--bs=4k', '--iodepth=16'] },
  { name: '4 KiB write and flush, 1 job', fio: ['--rw=randwrite', '--bs=4k', '--iodepth=1', '--fsync=1'] },
  {
    name: '4 KiB write and flush, 16 jobs',
    fio: ['--rw=randwrite', '--bs=4k', '--iodepth=1', '--fsync=1', ...JOBS],
  },
];

const folder = await mkdtemp(join(tmpdir(), 'postern-bench-storage-'));
const radosgw = await startRadosgw();
const servers: StorageServer[] = [];
try {
  servers.push(await startPostern('postern, directory', SIZE_BYTES));
  servers.push(await posternOnS3(SIZE_BYTES, radosgw, folder));
  servers.push(await nbdkitOnS3(SIZE_BYTES, radosgw, folder));
  servers.push(await nbdkitMemory(SIZE_BYTES, folder));
  print(
    `${availableParallelism()} cores, load ${loadavg()[0]?.toFixed(1)}, ${rounds} rounds of ${seconds} s, medians`,
  );
  print(['workload'.padEnd(34), ...servers.map(({ name }) => name.padStart(20))].join(''));
  for (const { name, fio } of WORKLOADS) print(await row(name, fio));
} finally {
  for (const server of servers) await server.stop();
  await radosgw.stop();
  await rm(folder, { recursive: true });
}

async function row(name: string, workload: readonly string[]): Promise<string> {
  const cells: string[] = [];
  const samples: number[][] = servers.map(() => []);
  for (let round = 0; round < Number(rounds); round += 1) {
    for (const [index, { socket }] of servers.entries()) {
      // One that cannot do a workload (fio says so) leaves a hole in the table, not an end to it.
      const found = await fio(socket, workload).catch(() => undefined);
      if (found === undefined) continue;
      samples[index]?.push(name.includes('MiB') ? found.mibPerSecond : found.perSecond);
    }
  }
  for (const values of samples) {
    if (values.length === 0) {
      cells.push('failed'.padStart(20));
      continue;
    }
    const middle = [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
    cells.push(`${middle.toFixed(0)}${name.includes('MiB') ? ' MiB/s' : '/s'}`.padStart(20));
  }
  return name.padEnd(34) + cells.join('');
}

async function fio(socket: string, workload: readonly string[]) {
  const output = join(folder, 'fio.json');
  const common = ['--name=bench', '--ioengine=nbd', `--uri=nbd+unix:///?socket=${socket}`];
  const extent = [`--size=${SIZE_BYTES}`, '--time_based', `--runtime=${seconds}`];
  await program('fio', ...common, ...workload, ...extent, '--output-format=json', `--output=${output}`);
  const text = await readFile(output, 'utf8');
  const parsed = JSON.parse(text.slice(text.indexOf('{'))) as {
    jobs: [Record<'read' | 'write', { total_ios: number; io_bytes: number; runtime: number }>];
  };
  const { read, write } = parsed.jobs[0];
  const elapsedMs = Math.max(read.runtime, write.runtime);
  return {
    perSecond: ((read.total_ios + write.total_ios) * 1000) / elapsedMs,
    mibPerSecond: ((read.io_bytes + write.io_bytes) * 1000) / elapsedMs / 2 ** 20,
  };
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
