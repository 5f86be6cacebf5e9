import { randomBytes } from 'node:crypto';
import { attachVolume } from '../../guest/volume/attach.ts';
import { createVolume } from '../../guest/volume/create.ts';
import type { Volume } from '../../guest/volume/engine.ts';
import { systemEnvironment } from '../../guest/volume/environment.ts';
import { BLOCK_BYTES, DEFAULT_LIMITS } from '../../guest/volume/limits.ts';
import { sealSegment } from '../../guest/volume/segment-seal.ts';
import { createMemoryStore } from '../../shared/objects/memory.ts';
import { MemoryAnchor } from '../volume/memory-anchor.ts';
import { KEYS, VOLUME } from '../volume/sample.ts';

/**
 * What the engine itself costs: over a store and an anchor in this process, which take next to no time, everything is the
 * engine's own CPU (and one copy that the memory store makes). `npm run bench:volume`.
 */
const MIB = 2 ** 20;
const NO = { fua: false };
const environment = systemEnvironment({ info() {}, warn() {}, error() {} });
const data = randomBytes(16 * MIB);

/** Runs `work` and prints what it did in a second, and what CPU each thing took. */
async function measure(name: string, unit: string, count: number, work: () => Promise<void>): Promise<void> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  await work();
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const perSecond = Math.round(count / seconds).toLocaleString('en');
  const cpuEach = ((user + system) / count).toFixed(unit === 'MiB' ? 0 : 1);
  process.stdout.write(
    `${name.padEnd(34)} ${perSecond.padStart(9)} ${unit}/s ${cpuEach.padStart(8)} us CPU per ${unit}\n`,
  );
}

async function inParallel(
  depth: number,
  count: number,
  each: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      const index = next;
      next += 1;
      await each(index);
    }
  };
  await Promise.all(Array.from({ length: depth }, worker));
}

async function sealing(): Promise<void> {
  const spans = Array.from({ length: 256 }, (_, index) => ({ lba: index * 16, blocks: 16 }));
  const fill = (span: { readonly lba: number }, target: Buffer): void => {
    target.set(data.subarray(span.lba * BLOCK_BYTES, span.lba * BLOCK_BYTES + target.length));
  };
  const plan = { kind: 'data', id: randomBytes(16), spans, liveBlocks: 0, fill } as const;
  await measure('seal 16 MiB segments', 'MiB', 128, async () => {
    for (let round = 0; round < 8; round += 1)
      await sealSegment(KEYS, VOLUME, plan, () => environment.pause());
  });
}

async function writes(volume: Volume): Promise<void> {
  const block = data.subarray(0, BLOCK_BYTES);
  const writeAndFlush = async (index: number): Promise<void> => {
    await volume.write(index * 7 * BLOCK_BYTES, block, NO);
    await volume.flush();
  };
  await measure('write 4 KiB + flush, depth 1', 'op', 3000, () => inParallel(1, 3000, writeAndFlush));
  await measure('write 4 KiB + flush, depth 16', 'op', 20_000, () => inParallel(16, 20_000, writeAndFlush));
  const scattered = (): number => Math.floor(Math.random() * 2 ** 20) * BLOCK_BYTES;
  await measure('random 4 KiB writes, depth 16', 'op', 30_000, async () => {
    await inParallel(16, 30_000, () => volume.write(scattered(), block, NO));
    await volume.flush();
  });
  await measure('sequential write of 1 MiB', 'MiB', 512, async () => {
    for (let at = 0; at < 512; at += 1) {
      const from = (at % 16) * MIB;
      await volume.write(2 ** 38 + at * MIB, data.subarray(from, from + MIB), NO);
    }
    await volume.flush();
  });
}

async function reads(volume: Volume): Promise<void> {
  await measure('sequential read of 256 KiB', 'MiB', 512, async () => {
    for (let at = 0; at < 2048; at += 1) await volume.read(2 ** 38 + (at * MIB) / 4, MIB / 4);
  });
  await volume.read(2 ** 38, MIB);
  const cached = (index: number) =>
    volume.read(2 ** 38 + (index % 256) * BLOCK_BYTES, BLOCK_BYTES).then(() => undefined);
  await measure('cached 4 KiB reads, depth 1', 'op', 100_000, () => inParallel(1, 100_000, cached));
  const cold = () =>
    volume
      .read(2 ** 38 + Math.floor(Math.random() * 2 ** 17) * BLOCK_BYTES, BLOCK_BYTES)
      .then(() => undefined);
  await measure('random 4 KiB reads, depth 1', 'op', 5000, () => inParallel(1, 5000, cold));
  await measure('random 4 KiB reads, depth 16', 'op', 5000, () => inParallel(16, 5000, cold));
}

const access = {
  store: createMemoryStore(),
  prefix: 'bench',
  name: 'bench',
  keyProvider: { kind: 'bench', rootKey: async () => Buffer.alloc(32, 1) },
  anchor: new MemoryAnchor(),
  environment,
  limits: DEFAULT_LIMITS,
};
await sealing();
await createVolume({ ...access, sizeBytes: 2 ** 40, mode: { kind: 'strict' } });
const volume = await attachVolume(access);
await writes(volume);
await reads(volume);
const { commitCount, spillCount } = volume.parts.committer;
process.stdout.write(
  `${commitCount} commits, ${spillCount} spills, ${JSON.stringify(volume.parts.objects.counts)}\n`,
);
await volume.detach();
await measure('attach', 'op', 1, async () => (await attachVolume(access)).close());
process.exit();
