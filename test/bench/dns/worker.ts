import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DomainName } from '../../../guest/dns/name.ts';
import { TYPE } from '../../../guest/dns/types.ts';
import { encodeQuery } from '../../../guest/dns/upstream/query.ts';
import { udpUpstream } from '../../../guest/dns/upstream/udp.ts';
import { buildHierarchy, signedFile } from './hierarchy.ts';

/**
 * Our resolver and unbound in the same role (validating forwarder, one thread, the same upstream: an unbound that does
 * not validate and has every answer in its cache), asked by dnsperf. CPU time is that of the contestant alone, which a
 * busy machine does not distort.
 */
const COLD_ZONES = 200;
/** Of them, those asked one after another, for the latency of a lone question. */
const LONE_ZONES = 50;
const NEW_NAMES = 10_000;
const CACHED_SECONDS = 5;
/** For the memory that they take. */
const MANY_NAMES = 100_000;
const UPSTREAM_PORT = 5301;
const CLOCK_TICKS_PER_SECOND = 100;

const folder = mkdtempSync(join(tmpdir(), 'postern-bench-dns-'));
const children: ChildProcess[] = [];
try {
  process.stdout.write('signing the zones ...\n');
  const { zones, anchor } = buildHierarchy(folder, COLD_ZONES, NEW_NAMES);
  startKnot(zones);
  startUnbound('upstream', UPSTREAM_PORT, [
    'module-config: "iterator"',
    'msg-cache-size: 256m',
    'rrset-cache-size: 256m',
    `root-hints: "${hints()}"`,
  ]);
  await ready(UPSTREAM_PORT);
  const small = Array.from({ length: COLD_ZONES }, (_, index) => `www.z${index}.bench`);
  const cold = file('cold', small.slice(LONE_ZONES));
  const lone = file('lone', small.slice(0, LONE_ZONES));
  const fresh = file(
    'fresh',
    Array.from({ length: NEW_NAMES }, (_, index) => `n${index}.names.bench`),
  );
  await warmUpstream(anchor, cold, lone, fresh);
  const results = new Map<string, Measured[]>();
  for (const [name, port] of [
    ['unbound', 5311],
    ['postern', 5312],
  ] as const) {
    const child = name === 'unbound' ? startForwarder(anchor, port) : startOurs(anchor, port);
    await ready(port);
    const measured = [
      await measure('new names in a known zone', child, port, ['-d', fresh, '-n', '1', '-q', '50']),
      await measure('cold chains', child, port, ['-d', cold, '-n', '1', '-q', '20']),
      await measure('cached', child, port, ['-d', fresh, '-l', String(CACHED_SECONDS), '-q', '100']),
    ];
    results.set(name, measured);
    process.stdout.write(`${name}: alone, cold ${await alone(port, small.slice(0, LONE_ZONES))} ms, `);
    process.stdout.write(`cached ${await alone(port, small)} ms\n`);
    process.stdout.write(`${name}: resident ${residentMegabytes(child)} MiB\n`);
    const half = Math.round((measured[2]?.perSecond ?? 0) / 2);
    process.stdout.write(`${name}: at ${half} q/s from cache, ${await latencies(port, fresh, half)}\n`);
    await ask(port, manyNames(), 50);
    process.stdout.write(`${name}: resident with ${MANY_NAMES} names ${residentMegabytes(child)} MiB\n`);
    child.kill('SIGKILL');
  }
  printTable(results);
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
}

/** Median latency of questions asked one after another, in milliseconds; the asker's own share is in it. */
async function alone(port: number, names: readonly string[]): Promise<string> {
  const socket = createSocket('udp4');
  socket.connect(port, '127.0.0.1');
  await once(socket, 'connect');
  const latencies: number[] = [];
  for (const name of names) {
    const started = performance.now();
    socket.send(encodeQuery(DomainName.parse(name), TYPE.A));
    await once(socket, 'message', { signal: AbortSignal.timeout(5_000) });
    latencies.push(performance.now() - started);
  }
  socket.close();
  return (latencies.sort((a, b) => a - b)[latencies.length >> 1] ?? Number.NaN).toFixed(3);
}

/** Latencies at a steady rate; dnsperf prints one a question. */
async function latencies(port: number, names: string, perSecond: number): Promise<string> {
  const args = ['-d', names, '-l', String(CACHED_SECONDS), '-Q', String(perSecond), '-v'];
  const report = await dnsperf(port, args);
  const each = [...report.matchAll(/^> NOERROR \S+ \S+ ([\d.]+)$/gm)].map(
    ([, seconds]) => Number(seconds) * 1000,
  );
  each.sort((a, b) => a - b);
  const at = (share: number): string => (each[Math.floor(each.length * share)] ?? Number.NaN).toFixed(3);
  return `median ${at(0.5)} ms, p99 ${at(0.99)} ms of ${each.length}`;
}

interface Measured {
  readonly title: string;
  readonly perSecond: number;
  readonly cpuMsEach: number;
  readonly lost: number;
}

async function measure(
  title: string,
  child: ChildProcess,
  port: number,
  args: readonly string[],
): Promise<Measured> {
  const before = cpuMs(child);
  const report = await dnsperf(port, args);
  const number = (label: string): number =>
    Number(new RegExp(`${label}:\\s+([\\d.]+)`).exec(report)?.[1] ?? Number.NaN);
  const completed = number('Queries completed');
  return {
    title,
    perSecond: number('Queries per second'),
    cpuMsEach: (cpuMs(child) - before) / completed,
    lost: number('Queries lost'),
  };
}

async function dnsperf(port: number, args: readonly string[]): Promise<string> {
  const child = spawn('dnsperf', ['-s', '127.0.0.1', '-p', String(port), '-D', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let report = '';
  for await (const chunk of child.stdout) report += chunk;
  return report;
}

function ask(port: number, names: string, inFlight: number): Promise<string> {
  return dnsperf(port, ['-d', names, '-n', '1', '-q', String(inFlight)]);
}

/** From a wildcard, each with its own answer in the cache. */
function manyNames(): string {
  return file(
    'many',
    Array.from({ length: MANY_NAMES }, (_, index) => `m${index}.wild.names.bench`),
  );
}

function printTable(results: ReadonlyMap<string, readonly Measured[]>): void {
  const [theirs = [], ours = []] = [results.get('unbound'), results.get('postern')];
  process.stdout.write(
    '\n                            unbound q/s  CPU ms   postern q/s  CPU ms  ratio q/s  ratio by CPU\n',
  );
  for (const [index, their] of theirs.entries()) {
    const our = ours[index];
    if (our === undefined) continue;
    const cells = [
      their.title.padEnd(26),
      their.perSecond.toFixed(0).padStart(11),
      their.cpuMsEach.toFixed(3).padStart(9),
      our.perSecond.toFixed(0).padStart(12),
      our.cpuMsEach.toFixed(3).padStart(9),
      (our.perSecond / their.perSecond).toFixed(2).padStart(8),
      (their.cpuMsEach / our.cpuMsEach).toFixed(2).padStart(11),
      our.lost > 0 ? `  (${our.lost} lost)` : '',
    ];
    process.stdout.write(`${cells.join(' ')}\n`);
  }
}

function startOurs(anchor: string, port: number): ChildProcess {
  const script = join(import.meta.dirname, 'contestant.ts');
  return begin(process.execPath, script, anchor, String(UPSTREAM_PORT), String(port));
}

function startForwarder(anchor: string, port: number): ChildProcess {
  const forward = `forward-zone:\n name: "."\n forward-addr: 127.0.0.1@${UPSTREAM_PORT}\n`;
  const options = [
    'module-config: "validator iterator"',
    `trust-anchor-file: "${anchor}"`,
    'aggressive-nsec: no',
    // Room for all names, as ours has.
    'msg-cache-size: 128m',
    'rrset-cache-size: 256m',
  ];
  return startUnbound('contestant', port, options, forward);
}

function startUnbound(name: string, port: number, options: readonly string[], more = ''): ChildProcess {
  const config = join(folder, `${name}.conf`);
  const common = [
    `interface: 127.0.0.1@${port}`,
    'num-threads: 1',
    'do-daemonize: no',
    'username: ""',
    'chroot: ""',
    'pidfile: ""',
    'use-syslog: no',
    'do-not-query-localhost: no',
    'do-ip6: no',
    'access-control: 127.0.0.0/8 allow',
    'outgoing-range: 4096',
    'num-queries-per-thread: 2048',
  ];
  writeFileSync(
    config,
    `server:\n ${[...common, ...options].join('\n ')}\nremote-control:\n control-enable: no\n${more}`,
  );
  return begin('unbound', '-d', '-c', config);
}

function startKnot(zones: readonly string[]): void {
  const storage = join(folder, 'knot');
  mkdirSync(storage);
  const listed = zones.map((zone) => ` - domain: ${zone}\n   file: "${signedFile(folder, zone)}"`).join('\n');
  const config = join(folder, 'knot.conf');
  writeFileSync(
    config,
    `server:\n  rundir: "${storage}"\n  listen: 127.0.0.2@53\ndatabase:\n  storage: "${storage}"\nzone:\n${listed}\n`,
  );
  begin('knotd', '-c', config);
}

function begin(program: string, ...args: string[]): ChildProcess {
  const child = spawn(program, args, {
    stdio: ['ignore', 'ignore', program === 'unbound' ? 'ignore' : 'inherit'],
  });
  children.push(child);
  return child;
}

function hints(): string {
  const path = join(folder, 'root.hints');
  writeFileSync(path, '. 3600000 NS ns.\nns. 3600000 A 127.0.0.2\n');
  return path;
}

function file(name: string, names: readonly string[]): string {
  const path = join(folder, name);
  writeFileSync(path, `${names.map((one) => `${one} A`).join('\n')}\n`);
  return path;
}

/** A validator before the contestants has the upstream fetch everything they will ask it. */
async function warmUpstream(anchor: string, ...files: readonly string[]): Promise<void> {
  const child = startForwarder(anchor, 5310);
  await ready(5310);
  for (const path of files)
    execFileSync('dnsperf', ['-s', '127.0.0.1', '-p', '5310', '-D', '-d', path, '-n', '1', '-q', '20'], {
      stdio: 'ignore',
    });
  child.kill('SIGKILL');
}

async function ready(port: number): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const query = encodeQuery(DomainName.parse('bench.'), TYPE.A);
    const signal = AbortSignal.timeout(300);
    const answer = await udpUpstream({ address: '127.0.0.1', port })
      .exchange(query, { signal })
      .catch(() => undefined);
    const rcode = answer === undefined ? -1 : answer.readUInt16BE(2) & 0xf;
    if (rcode === 0 || rcode === 5) return;
    await sleep(100);
  }
  throw new Error(`nothing answers on port ${port}`);
}

function cpuMs({ pid }: ChildProcess): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / CLOCK_TICKS_PER_SECOND;
}

function residentMegabytes({ pid }: ChildProcess): string {
  return (Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024).toFixed(0);
}
