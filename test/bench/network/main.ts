import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Target, Task } from './load.ts';
import {
  cpuSeconds,
  firstLine,
  flowsAtMost,
  loadWords,
  measure,
  residentBytes,
  run,
  stopAll,
} from './processes.ts';
import { direct, postern, type Setup, slirp4netns, socat } from './setups.ts';
import { print, Table } from './table.ts';

/**
 * `npm run bench:network [-- --rounds N --seconds S --flows N --only bulk|connects|latency|idle]`: Postern (two processes, unix and hybrid), socat pairs,
 * slirp4netns and a direct connection, one after the other in every round, so that noise meets all of them. Prints
 * medians, and ratios to `socat -b 262144`.
 */
const option = (name: string, fallback: number): number => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : Number(process.argv[at + 1]);
};
const ROUNDS = option('rounds', 5);
const SECONDS = option('seconds', 2);
const IDLE_FLOWS = Math.min(option('flows', 10_000), flowsAtMost());

function wanted(part: string): boolean {
  const at = process.argv.indexOf('--only');
  return at < 0 || process.argv[at + 1] === part;
}

const folder = mkdtempSync(join(tmpdir(), 'postern-bench-'));
async function leave(): Promise<void> {
  await stopAll();
  rmSync(folder, { recursive: true, force: true });
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => void leave().then(() => process.exit(1)));
}
try {
  const servers = { bulkPort: await serve(), echoPort: await serve() };
  const setups = [
    direct(servers),
    await socat(folder, servers),
    await socat(folder, servers, 262_144),
    await slirp4netns(servers),
    await postern(folder, servers, 'unix'),
    await postern(folder, servers, 'hybrid'),
  ];
  if (wanted('bulk')) {
    for (const up of [true, false]) for (const flows of [1, 8]) await benchBulk(setups, up, flows);
  }
  if (wanted('connects')) await benchConnects(setups);
  if (wanted('latency')) for (const bulkFlows of [0, 4]) await benchLatency(setups, bulkFlows);
  if (wanted('idle')) await benchIdle(setups);
} finally {
  await leave();
}

async function serve(): Promise<number> {
  const server = run(loadWords({ kind: 'server' }));
  return (JSON.parse(await firstLine(server)) as { port: number }).port;
}

async function benchBulk(setups: readonly Setup[], up: boolean, flows: number): Promise<void> {
  const rate = new Table(`throughput ${up ? 'up' : 'down'}, ${flows} flows`, 'Gbit/s');
  const cost = new Table(`CPU ${up ? 'up' : 'down'}, ${flows} flows`, 's/Gbit');
  await rounds(setups, async ({ name, bulk: target, prefix, processes }) => {
    const before = cpuSeconds(processes);
    const result = await measure<{ bytes: number; seconds: number }>(
      { kind: 'bulk', target, up, flows, seconds: SECONDS },
      prefix,
    );
    await settle();
    const gigabits = (result.bytes * 8) / 1e9;
    rate.add(name, gigabits / result.seconds);
    if (processes.length > 0) cost.add(name, (cpuSeconds(processes) - before) / gigabits);
  });
  rate.print();
  cost.print();
}

async function benchConnects(setups: readonly Setup[]): Promise<void> {
  const table = new Table('new flows', '1/s');
  await rounds(setups, async ({ name, echo: target, prefix }) => {
    const task = { kind: 'connect', target, concurrency: 16, seconds: SECONDS } as const;
    const { count, seconds } = await measure<{ count: number; seconds: number }>(task, prefix);
    table.add(name, count / seconds);
    await settle();
  });
  table.print();
}

async function benchLatency(setups: readonly Setup[], bulkFlows: number): Promise<void> {
  const under = bulkFlows === 0 ? 'idle' : `under ${bulkFlows} bulk flows`;
  const p50 = new Table(`latency ${under}, p50`, 'ms');
  const p99 = new Table(`latency ${under}, p99`, 'ms');
  await rounds(setups, async ({ name, bulk, echo, prefix = [] }) => {
    // Listened to from the start: Node throws away what an ended process has said to nobody.
    const background =
      bulkFlows > 0 ? firstLine(run([...prefix, ...loadWords(pouring(bulk, bulkFlows))])) : undefined;
    await settle();
    const task = { kind: 'latency', target: echo, seconds: SECONDS } as const;
    const { p50Ms, p99Ms } = await measure<{ p50Ms: number; p99Ms: number }>(task, prefix);
    p50.add(name, p50Ms);
    p99.add(name, p99Ms);
    await background;
    await settle();
  });
  p50.print();
  p99.print();
}

/** Bulk in the background that outlasts the measurement beside it, whose process may take a second to start. */
function pouring(target: Target, flows: number): Task {
  return { kind: 'bulk', target, up: false, flows, seconds: SECONDS + 2 };
}

async function benchIdle(setups: readonly Setup[]): Promise<void> {
  for (const { name, echo: target, processes } of setups.filter((setup) =>
    setup.name.startsWith('postern'),
  )) {
    const before = processes.map(residentBytes);
    const holder = run(loadWords({ kind: 'idle', target, flows: IDLE_FLOWS }), 'pipe');
    const { flows } = JSON.parse(await firstLine(holder)) as { flows: number };
    await settle();
    const [guest = 0, parent = 0] = processes.map(
      (child, at) => (residentBytes(child) - (before[at] ?? 0)) / flows / 1024,
    );
    print(
      `memory per idle flow at ${flows}: ${name}: guest ${guest.toFixed(1)} KiB, parent ${parent.toFixed(1)} KiB`,
    );
    holder.stdin?.end();
    await settle();
  }
  print('(socat keeps a process a flow, about 1 MiB; slirp4netns is not measured here)');
}

async function rounds(setups: readonly Setup[], work: (setup: Setup) => Promise<void>): Promise<void> {
  for (let round = 0; round < ROUNDS; round += 1) for (const setup of setups) await work(setup);
}

/** Lets the processes between finish with what the load has left. */
function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 400));
}
