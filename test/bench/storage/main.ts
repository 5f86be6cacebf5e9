import { mkdtemp, rm } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startRadosgw } from '../../s3/radosgw.ts';
import { attachTimes } from './attach.ts';
import { compare } from './compare.ts';
import {
  type Contestant,
  type Setting,
  startMemory,
  startNbdkitS3,
  startPostern,
  startS3backer,
} from './contestants.ts';
import { floors } from './floors.ts';
import { print, tool } from './measure.ts';

// npm run bench:storage [-- --quick]: volumes through the relay against other block devices over S3, on one radosgw in
// memory, all of them asked by fio over NBD, in turn within each round. 15 minutes; quick: all of it, in a few, to see that
// it runs, with figures that mean little.
const { values } = parseArgs({ options: { quick: { type: 'boolean', default: false } } });
const FULL = { mib: 256, rounds: 3, seconds: 2, floorCount: 300, writtenMib: 10_240 };
const QUICK = { mib: 64, rounds: 1, seconds: 1, floorCount: 60, writtenMib: 256 };
const { mib, rounds, seconds, floorCount, writtenMib } = values.quick ? QUICK : FULL;

for (const [name, packages] of [
  ['s3backer', 's3backer'],
  ['nbdkit', 'nbdkit nbdkit-plugin-python'],
  ['fio', 'fio'],
  ['curl', 'curl'],
] as const) {
  await tool('which', [name]).catch(() => {
    throw new Error(
      `apt-get install -y --no-install-recommends fuse ${packages} (and test/setup.sh for the rest)`,
    );
  });
}

const startMs = performance.now();
const folder = await mkdtemp(join(tmpdir(), 'postern-bench-storage-'));
const server = await startRadosgw();
const setting: Setting = { folder, server, sizeBytes: mib * 1024 * 1024 };
const contestants: Contestant[] = [];
try {
  contestants.push(await startPostern(setting, 's3'), await startPostern(setting, 'directory'));
  contestants.push(await startMemory(setting), await startNbdkitS3(setting), await startS3backer(setting));
  const flushRate = await compare({ setting, contestants, rounds, seconds });
  await floors(setting, floorCount, flushRate);
  await attachTimes(setting, writtenMib);
  const minutes = (performance.now() - startMs) / 60_000;
  print(`\n${minutes.toFixed(1)} minutes, load ${loadavg()[0]?.toFixed(1)} after`);
} finally {
  for (const contestant of contestants) await contestant.stop();
  await server.stop();
  await rm(folder, { recursive: true });
}
