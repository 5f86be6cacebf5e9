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
const SEED = Number(process.env['SEED'] ?? randomInt(2 ** 31));

describe(`guest, parent and Ceph’s gateway, killed in ${ROUNDS} rounds (SEED=${SEED})`, () => {
  let folder = '';
  let server: Radosgw;
  let world: VolumeWorld;
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
  });
  after(async () => {
    await world?.remove();
    await server?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  test('every flush that was acknowledged is found again, and nothing that was never written', async (t) => {
    const gateway = { kill: () => server.killGateway(), start: () => server.startGateway() };
    const crashes = await Crashes.begin(world, SEED, gateway);
    for (let round = 1; round <= ROUNDS; round += 1) await crashes.round(`SEED=${SEED} round ${round}`);
    await crashes.end();
    t.diagnostic(JSON.stringify(crashes.counts));
    assert.ok(crashes.counts.flushes > 0);
  });
});
