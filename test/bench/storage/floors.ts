import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createBucket, openBucketStore } from '../../s3/buckets.ts';
import type { Setting } from './contestants.ts';
import { median, print, tool } from './measure.ts';

const MIB = 1024 * 1024;
/** A commit object of one block: its record, the sealed block, the directory. */
const COMMIT_BYTES = 4800;
const SEGMENT_BYTES = 8 * MIB;

/** What the same machine does at the same time without us: the bare store, and the disk of the directory and of the anchor. */
export async function floors(
  setting: Setting,
  count: number,
  flushRate: (jobs: number) => number,
): Promise<void> {
  print('\nfloors, measured without any of ours but the S3 client');
  const bucket = await openBucketStore(setting.server);
  const small = randomBytes(COMMIT_BYTES);
  const large = randomBytes(SEGMENT_BYTES);
  const put = (body: Buffer) => (key: string) => bucket.store.putIfAbsent(key, body);
  const get = (key: string) => bucket.store.get(key, { range: { offset: 0, length: MIB } });
  try {
    // The best that a flush could be, with one PUT each and no sharing.
    for (const depth of [1, 16]) {
      const rate = await puts(`PUT ${COMMIT_BYTES} bytes, ${depth} at a time`, count, depth, put(small));
      print(
        `    write + flush of ours at ${depth} at a time was ${(flushRate(depth) / rate).toFixed(2)} of it`,
      );
    }
    await puts('PUT 8 MiB, 3 at a time', 12, 3, put(large), 'large');
    await puts('GET 1 MiB, 8 at a time', count / 2, 8, () => get('large/0'));
  } finally {
    bucket.close();
  }
  await curlPuts(setting, count, small);
  await disk(setting, count);
}

let runs = 0;

async function puts(
  name: string,
  count: number,
  depth: number,
  work: (key: string) => Promise<unknown>,
  prefix = `floor-${runs}`,
): Promise<number> {
  runs += 1;
  const latencies: number[] = [];
  let next = 0;
  // The first request opens the connection.
  await work(`${prefix}/first`);
  const start = performance.now();
  const one = async (): Promise<void> => {
    while (next < count) {
      const key = `${prefix}/${next}`;
      next += 1;
      const begin = performance.now();
      await work(key);
      latencies.push(performance.now() - begin);
    }
  };
  const cpu = process.cpuUsage();
  await Promise.all(Array.from({ length: depth }, one));
  const { user, system } = process.cpuUsage(cpu);
  const rate = (count * 1000) / (performance.now() - start);
  const each = `p50 ${median(latencies).toFixed(1)} ms, client's CPU ${((user + system) / 1000 / count).toFixed(1)} ms`;
  print(`  ${`radosgw, ${name}`.padEnd(44)}${rate.toFixed(0).padStart(7)}/s  ${each}`);
  return rate;
}

/** One curl, one connection, one object after another. */
async function curlPuts({ folder, server }: Setting, count: number, body: Buffer): Promise<void> {
  const url = `${server.endpoint}/${await createBucket(server)}`;
  const file = join(folder, 'floor-body');
  await writeFile(file, body);
  const keys = `${server.accessKeyId}:${server.secretAccessKey}`;
  const sign = ['--aws-sigv4', 'aws:amz:us-east-1:s3', '--user', keys];
  const base = ['-sS', '--fail', ...sign, '-H', 'x-amz-content-sha256: UNSIGNED-PAYLOAD'];
  const uploads = Array.from({ length: count }, (_, at) => ['-T', file, '-o', '/dev/null', `${url}/${at}`]);
  const start = performance.now();
  await tool('curl', [...base, ...uploads.flat()]);
  const ms = performance.now() - start;
  print(
    `  ${`radosgw, curl PUT ${body.length} bytes, 1 at a time`.padEnd(44)}${((count * 1000) / ms).toFixed(0).padStart(7)}/s`,
  );
}

/** What a directory store and a file anchor stand on: an overwrite that is on the disk. */
async function disk({ folder }: Setting, count: number): Promise<void> {
  const options = ['--name=floor', `--filename=${join(folder, 'floor-disk')}`, '--rw=write', '--bs=4k'];
  const text = await tool('fio', [
    ...options,
    `--size=${count * 4}k`,
    '--overwrite=1',
    '--fdatasync=1',
    '--output-format=json',
  ]);
  const { write } = (JSON.parse(text.slice(text.indexOf('{'))) as { jobs: [{ write: { iops: number } }] })
    .jobs[0];
  print(`  ${'disk, 4 KiB overwrite and fdatasync'.padEnd(44)}${write.iops.toFixed(0).padStart(7)}/s`);
}
