import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { connectRelay } from '../../guest/objects/client.ts';
import { openDirectoryStore } from '../../parent/objects/directory.ts';
import { ObjectService } from '../../parent/objects/service.ts';
import { recycleBody } from '../../shared/objects/bodies.ts';
import { createMemoryStore } from '../../shared/objects/memory.ts';
import type { ObjectStore } from '../../shared/objects/store.ts';
import { connectStream, listenStream } from '../../shared/transport/connect.ts';
import { openBucketStore } from '../s3/buckets.ts';
import { startRadosgw } from '../s3/radosgw.ts';

/**
 * PUT and GET of 4 KiB and 8 MiB: each store directly, and through the relay over a unix socket (guest and parent in
 * one process, so that CPU is shared as on one core). Rounds of all subjects are interleaved. `npm run bench:objects`
 */
const SIZES = [
  { name: '4 KiB', sizeBytes: 4096, calls: 100, parallelCalls: 400 },
  { name: '8 MiB', sizeBytes: 8 * 1024 * 1024, calls: 8, parallelCalls: 16 },
];
const ROUNDS = 3;
const DEPTH = 8;

interface Subject {
  readonly name: string;
  readonly store: ObjectStore;
  readonly direct: string;
}

/** Of one operation: latencies of single calls, calls a millisecond at DEPTH, and CPU of this process a call. */
interface Sample {
  readonly latencyMs: number[];
  readonly rates: number[];
  readonly cpuMs: number[];
}

const server = await startRadosgw();
const folder = await mkdtemp(`${tmpdir()}/postern-bench-`);
const bucket = await openBucketStore(server);
const closers: (() => void | Promise<void>)[] = [];
const direct: [string, ObjectStore][] = [
  ['memory', createMemoryStore()],
  ['directory', await openDirectoryStore(folder)],
  ['s3', bucket.store],
];
const subjects: Subject[] = [];
for (const [name, store] of direct) {
  subjects.push({ name, store, direct: name });
  subjects.push({ name: `${name}, relayed`, store: await relayed(name, store), direct: name });
}
const samples = new Map<string, Sample>();
let keyCount = 0;

try {
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const size of SIZES) for (const subject of subjects) await measure(subject, size);
  }
  report();
} finally {
  for (const close of closers) await close();
  bucket.close();
  await server.stop();
  await rm(folder, { recursive: true });
}

async function relayed(name: string, store: ObjectStore): Promise<ObjectStore> {
  const address = { kind: 'unix', path: `${folder}-${name}.sock` } as const;
  const service = new ObjectService({ store });
  const listener = await listenStream(address, (stream) => void service.serve(stream));
  const relay = connectRelay({ open: () => connectStream(address) });
  closers.push(async () => {
    relay.close();
    service.close();
    await listener.close();
  });
  return relay.store;
}

async function measure({ name, store }: Subject, size: (typeof SIZES)[number]): Promise<void> {
  const body = Buffer.alloc(size.sizeBytes, keyCount % 256);
  const range = { offset: 0, length: size.sizeBytes };
  const keys = Array.from({ length: size.calls }, newKey);
  const many = Array.from({ length: size.parallelCalls }, newKey);
  await store.putIfAbsent(newKey(), body);
  await sample(`PUT ${size.name} ${name}`, keys, many, (key) => store.putIfAbsent(key, body));
  await sample(`GET ${size.name} ${name}`, keys, many, async (key) => {
    // As a reader does that is done with it.
    const found = await store.get(key, { range });
    if (found !== undefined) recycleBody(found);
  });
  await parallel([...keys, ...many], (key) => store.delete(key));
}

async function sample(
  name: string,
  keys: readonly string[],
  many: readonly string[],
  work: (key: string) => Promise<unknown>,
): Promise<void> {
  const { latencyMs, rates, cpuMs } = sampleOf(name);
  for (const key of keys) latencyMs.push(await timed(() => work(key)));
  const before = process.cpuUsage();
  rates.push(many.length / (await timed(() => parallel(many, work))));
  const { user, system } = process.cpuUsage(before);
  cpuMs.push((user + system) / 1000 / many.length);
}

function newKey(): string {
  keyCount += 1;
  return `bench/${String(keyCount % 16).padStart(2, '0')}/${keyCount}`;
}

/** Milliseconds. */
async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

async function parallel(keys: readonly string[], work: (key: string) => Promise<unknown>): Promise<void> {
  const rest = keys.values();
  await Promise.all(
    Array.from({ length: DEPTH }, async () => {
      for (const key of rest) await work(key);
    }),
  );
}

function sampleOf(name: string): Sample {
  const sample = samples.get(name) ?? { latencyMs: [], rates: [], cpuMs: [] };
  samples.set(name, sample);
  return sample;
}

function median(values: readonly number[]): number {
  return [...values].sort((left, right) => left - right)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** A line for each operation, size and store; `x` is against the same store without the relay. */
function report(): void {
  print(['', 'p50 ms', 'x', `calls/s @${DEPTH}`, `MiB/s @${DEPTH}`, 'x', 'CPU ms/call']);
  for (const { name: size, sizeBytes } of SIZES) {
    for (const operation of ['PUT', 'GET']) {
      for (const { name, direct: base } of subjects) {
        const [own, of] = [
          sampleOf(`${operation} ${size} ${name}`),
          sampleOf(`${operation} ${size} ${base}`),
        ];
        const rate = median(own.rates) * 1000;
        print([
          `${operation} ${size} ${name}`,
          median(own.latencyMs).toFixed(2),
          (median(own.latencyMs) / median(of.latencyMs)).toFixed(2),
          rate.toFixed(0),
          ((rate * sizeBytes) / 2 ** 20).toFixed(1),
          (median(own.rates) / median(of.rates)).toFixed(2),
          median(own.cpuMs).toFixed(2),
        ]);
      }
    }
  }
}

function print(cells: readonly string[]): void {
  process.stdout.write(
    `${cells.map((cell, at) => (at === 0 ? cell.padEnd(28) : cell.padStart(13))).join('')}\n`,
  );
}
