import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startRadosgw } from '../../s3/radosgw.ts';
import { program } from '../../scenario/nbd/program.ts';
import { attachTimes } from './attach.ts';
import {
  type Contestant,
  type Requests,
  type Setting,
  startMemory,
  startNbdkitS3,
  startPostern,
  startS3backer,
} from './contestants.ts';
import { cpuSeconds, fio, median, peakMemoryMib, WORKLOADS, type Workload } from './measure.ts';

// npm run bench:storage [-- SECONDS ROUNDS MIB]: volumes through the relay against other block devices over S3, on one
// radosgw in memory, all of them asked by fio over NBD, in turn within each round.
const [seconds = '2', rounds = '3', mib = '256'] = process.argv.slice(2);
const MIB = 1024 * 1024;
/** Longer than s3backer holds a write back; and in all as long as its 64 MiB take. */
const SETTLE_POLL_MS = 400;
const SETTLE_POLLS = 50;
/** Ours that the others are compared with. */
const BASE = 'postern, radosgw';

interface Sample {
  readonly rate: number;
  readonly puts: number;
  readonly gets: number;
  readonly cpuPerGib: number;
}

for (const [tool, name] of [
  ['s3backer', 's3backer'],
  ['nbdkit', 'nbdkit nbdkit-plugin-python'],
  ['fio', 'fio'],
] as const) {
  await program('which', tool).catch(() => {
    throw new Error(
      `apt-get install -y --no-install-recommends fuse ${name} (and test/setup.sh for the rest)`,
    );
  });
}

const folder = await mkdtemp(join(tmpdir(), 'postern-bench-storage-'));
const server = await startRadosgw();
const setting: Setting = { folder, server, sizeBytes: Number(mib) * MIB };
const contestants: Contestant[] = [];
try {
  contestants.push(await startPostern(setting, 's3'), await startPostern(setting, 'directory'));
  contestants.push(await startMemory(setting), await startNbdkitS3(setting), await startS3backer(setting));
  await compare();
  await attachTimes(setting, print);
} finally {
  for (const contestant of contestants) await contestant.stop();
  await server.stop();
  await rm(folder, { recursive: true });
}

async function compare(): Promise<void> {
  const load = loadavg()[0]?.toFixed(1);
  print(
    `${availableParallelism()} cores, load ${load} before; ${rounds} rounds of ${seconds} s on ${mib} MiB; medians`,
  );
  print(
    'strict: a flush of ours is stored and anchored (file anchor) when it is answered; the others store plaintext',
  );
  print(
    's3backer: its fsync does nothing, so what it calls a flush is none; up to 64 MiB stay in its memory',
  );
  print('PUTs, GETs and CPU include what was put off until after the workload');
  const [fill] = WORKLOADS;
  if (fill === undefined) throw new Error('no workloads');
  for (const contestant of contestants) {
    await fio(contestant.socket, fill, setting.sizeBytes, undefined);
    await settled(contestant);
  }
  const samples = new Map<string, Sample[]>();
  for (let round = 0; round < Number(rounds); round += 1) {
    for (const workload of WORKLOADS) {
      for (const contestant of contestants) {
        const key = `${workload.name}/${contestant.name}`;
        // One that cannot do a workload (fio says so) leaves a hole in the table, not an end to it.
        const found = await sample(contestant, workload).catch(() => undefined);
        if (found !== undefined) samples.set(key, [...(samples.get(key) ?? []), found]);
      }
      if (round + 1 === Number(rounds)) report(workload, samples);
    }
  }
  print('\nmost memory, MiB of each process');
  for (const { name, pids } of contestants) {
    const peaks = (await peakMemoryMib(pids)).map((peak) => peak.toFixed(0));
    print(`  ${name.padEnd(22)}${peaks.join(' + ')}`);
  }
}

async function sample(contestant: Contestant, workload: Workload): Promise<Sample> {
  const before = await contestant.requests();
  const cpuBefore = await cpuSeconds(contestant.pids);
  const totals = await fio(contestant.socket, workload, setting.sizeBytes, Number(seconds));
  const after = await settled(contestant);
  const cpu = (await cpuSeconds(contestant.pids)) - cpuBefore;
  const amount = workload.unit === 'MiB/s' ? totals.bytes / MIB : totals.operations;
  return {
    rate: (amount * 1000) / totals.elapsedMs,
    puts: (after.puts - before.puts) / amount,
    gets: (after.gets - before.gets) / amount,
    cpuPerGib: (cpu * 1024 * MIB) / totals.bytes,
  };
}

/** What is put off is counted as well, and is over before the next one has its turn. */
async function settled(contestant: Contestant): Promise<Requests> {
  let last = await contestant.requests();
  for (let poll = 0; poll < SETTLE_POLLS; poll += 1) {
    await sleep(SETTLE_POLL_MS);
    const now = await contestant.requests();
    if (now.puts === last.puts && now.gets === last.gets) break;
    last = now;
  }
  return last;
}

function report(workload: Workload, samples: ReadonlyMap<string, readonly Sample[]>): void {
  const per = workload.unit === 'MiB/s' ? 'MiB' : 'op';
  print(`\n${workload.name}`);
  row('', [workload.unit, 'x of ours', `PUT/${per}`, `GET/${per}`, 'CPU s/GiB']);
  const of = (name: string, field: keyof Sample): number =>
    median((samples.get(`${workload.name}/${name}`) ?? []).map((one) => one[field]));
  for (const { name } of contestants) {
    const ratio = of(name, 'rate') / of(BASE, 'rate');
    row(name, [
      of(name, 'rate').toFixed(0),
      ratio.toFixed(2),
      of(name, 'puts').toFixed(2),
      of(name, 'gets').toFixed(2),
      of(name, 'cpuPerGib').toFixed(1),
    ]);
  }
}

function row(name: string, cells: readonly string[]): void {
  print(`  ${name.padEnd(22)}${cells.map((cell) => cell.padStart(11)).join('')}`);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
