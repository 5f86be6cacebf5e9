import { availableParallelism, loadavg } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Contestant, Requests, Setting } from './contestants.ts';
import {
  cpuSeconds,
  fio,
  flushName,
  median,
  peakMemoryMib,
  print,
  WORKLOADS,
  type Workload,
} from './measure.ts';

const MIB = 1024 * 1024;
/** Longer than s3backer holds a write back; and in all as long as its 64 MiB take. */
const SETTLE_POLL_MS = 400;
const SETTLE_POLLS = 50;
/** Ours that the others are compared with. */
const BASE = 'postern, radosgw';
/** How many of the workloads, the first ones, are sequential. */
const SEQUENTIAL_COUNT = 2;

interface Sample {
  readonly rate: number;
  readonly puts: number;
  readonly gets: number;
  readonly cpuPerGib: number;
}

export interface Course {
  readonly setting: Setting;
  readonly contestants: readonly Contestant[];
  readonly rounds: number;
  readonly seconds: number;
}

/**
 * Every workload on every contestant, in turn within each round; prints medians over the rounds.
 * @returns our flushes a second on the S3 server, so many at a time
 */
export async function compare({
  setting,
  contestants,
  rounds,
  seconds,
}: Course): Promise<(jobs: number) => number> {
  const load = loadavg()[0]?.toFixed(1);
  print(
    `${availableParallelism()} cores, load ${load} before; ${rounds} rounds of ${seconds} s on ${setting.sizeBytes / MIB} MiB; medians`,
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
  for (let round = 0; round < rounds; round += 1) {
    for (const [index, workload] of WORKLOADS.entries()) {
      for (const contestant of contestants) {
        const key = `${workload.name}/${contestant.name}`;
        // One that cannot do a workload (fio says so) leaves a hole in the table, not an end to it.
        const found = await sample(setting, contestant, workload, seconds).catch(() => undefined);
        if (found !== undefined) samples.set(key, [...(samples.get(key) ?? []), found]);
      }
      if (round + 1 === rounds) report(workload, samples, contestants);
      if (round === 0 && index + 1 === SEQUENTIAL_COUNT)
        await memory('the first sequential write and read', contestants);
    }
  }
  await memory('everything', contestants);
  return (jobs) => median((samples.get(`${flushName(jobs)}/${BASE}`) ?? []).map(({ rate }) => rate));
}

/** The kernel's high-water mark (VmHWM): all that a process ever had resident, its program and its heap included. */
async function memory(after: string, contestants: readonly Contestant[]): Promise<void> {
  print(`\nmost resident memory after ${after}, MiB of each process (ours: guest + parent)`);
  for (const { name, pids } of contestants) {
    const peaks = (await peakMemoryMib(pids)).map((peak) => peak.toFixed(0));
    print(`  ${name.padEnd(22)}${peaks.join(' + ')}`);
  }
}

async function sample(
  setting: Setting,
  contestant: Contestant,
  workload: Workload,
  seconds: number,
): Promise<Sample> {
  if (workload.withinBytes !== undefined) await warm(setting, contestant, workload);
  const before = await contestant.requests();
  const cpuBefore = await cpuSeconds(contestant.pids);
  const totals = await fio(contestant.socket, workload, setting.sizeBytes, seconds);
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

/** Reads what is measured from cache once, in order. */
async function warm(setting: Setting, { socket }: Contestant, workload: Workload): Promise<void> {
  const inOrder = { ...workload, fio: ['--rw=read', '--bs=64k', '--iodepth=4'] };
  await fio(socket, inOrder, setting.sizeBytes, undefined);
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

function report(
  workload: Workload,
  samples: ReadonlyMap<string, readonly Sample[]>,
  contestants: readonly Contestant[],
): void {
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
