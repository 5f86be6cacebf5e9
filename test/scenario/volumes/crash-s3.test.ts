import { randomInt } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { createBucket } from '../../s3/buckets.ts';
import { type Radosgw, startRadosgw } from '../../s3/radosgw.ts';
import { testRounds } from './crash-rounds.ts';
import { Crashes } from './crashes.ts';
import { VolumeWorld } from './world.ts';

const ROUNDS = process.env['SLOW'] === '1' ? 150 : 8;
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

  testRounds(() => crashes, ROUNDS, SEED);
});
