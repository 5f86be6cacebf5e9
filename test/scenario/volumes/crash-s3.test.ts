import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createBucket } from '../../s3/buckets.ts';
import { type Radosgw, startRadosgw } from '../../s3/radosgw.ts';
import { Crashes } from './crashes.ts';
import { VolumeWorld } from './world.ts';

const ROUNDS = process.env['SLOW'] === '1' ? 150 : 8;
const BATCH = 50;
const SEED = Number(process.env['SEED'] ?? randomInt(2 ** 31));

describe(`guest, parent and Ceph’s gateway, killed in ${ROUNDS} rounds (SEED=${SEED})`, () => {
  let folder = '';
  let server: Radosgw;
  let world: VolumeWorld;
  let crashes: Crashes;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'postern-crash-s3-'));
    // Without the gateway's caches: a new one would wait half a minute for those of the one that was killed.
    server = await startRadosgw({ cache: false });
    const secretAccessKeyFile = join(folder, 's3.secret');
    await writeFile(secretAccessKeyFile, server.secretAccessKey, { mode: 0o600 });
    const { endpoint, accessKeyId } = server;
    const bucket = await createBucket(server);
    const credentials = { accessKeyId, secretAccessKeyFile };
    const s3 = { bucket, region: 'us-east-1', endpoint, forcePathStyle: true, credentials };
    world = await VolumeWorld.make({ s3 });
    const gateway = { kill: () => server.killGateway(), start: () => server.startGateway() };
    crashes = await Crashes.begin(world, SEED, gateway);
  });
  after(async () => {
    await world?.remove();
    await server?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  // Each has a deadline of its own.
  for (let from = 1; from <= ROUNDS; from += BATCH) {
    const to = Math.min(ROUNDS, from + BATCH - 1);
    test(`rounds ${from} to ${to}: every acknowledged flush is found, nothing that was never written`, async () => {
      for (let round = from; round <= to; round += 1) await crashes.round(`SEED=${SEED} round ${round}`);
    });
  }

  test('in the end every byte verifies', async (t) => {
    await crashes.end();
    t.diagnostic(JSON.stringify(crashes.counts));
    assert.ok(crashes.counts.flushes > 0);
  });
});
