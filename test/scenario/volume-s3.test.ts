import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { attachVolume } from '../../guest/volume/attach.ts';
import { checkVolume } from '../../guest/volume/check.ts';
import { createVolume, type VolumeAccess } from '../../guest/volume/create.ts';
import type { Volume } from '../../guest/volume/engine.ts';
import { systemEnvironment } from '../../guest/volume/environment.ts';
import { collectGarbage } from '../../guest/volume/gc.ts';
import { inspectVolume } from '../../guest/volume/inspect.ts';
import { BLOCK_BYTES, DEFAULT_LIMITS } from '../../guest/volume/limits.ts';
import { rekey } from '../../guest/volume/rekey.ts';
import { createSnapshot, deleteSnapshot, restoreSnapshot } from '../../guest/volume/snapshot.ts';
import { volumeStatus } from '../../guest/volume/status.ts';
import type { S3Store } from '../../parent/objects/s3.ts';
import { type Random, seededRandom } from '../../shared/objects/random.ts';
import { relayed } from '../objects/relayed.ts';
import { openBucketStore } from '../s3/buckets.ts';
import { type Radosgw, startRadosgw } from '../s3/radosgw.ts';
import { MemoryAnchor } from '../volume/memory-anchor.ts';
import { ROOT_KEY, SMALL_LIMITS } from '../volume/world.ts';

const MIB = 1024 * 1024;
const SIZE_BYTES = 64 * MIB;
const NO = { fua: false };
const SEED = Number(process.env['SEED'] ?? Date.now() & 0x7fffffff);
const ROUNDS = process.env['SLOW'] === '1' ? 40 : 4;
const WRITERS = 4;
const WRITER_BLOCKS = 8;

describe(`a volume on Ceph’s gateway behind the relay (SEED=${SEED})`, () => {
  let server: Radosgw;
  const opened: { readonly bucket: S3Store; readonly relay: ReturnType<typeof relayed> }[] = [];
  before(async () => {
    // Without the gateway's caches: a new one would wait half a minute for those of the one that was killed.
    server = await startRadosgw({ cache: false });
  });
  after(async () => {
    for (const { bucket, relay } of opened) {
      relay.close();
      relay.service.close();
      bucket.close();
    }
    await server?.stop();
  });

  async function newAccess(limits = SMALL_LIMITS): Promise<VolumeAccess> {
    const bucket = await openBucketStore(server);
    const relay = relayed(bucket.store);
    opened.push({ bucket, relay });
    return {
      store: relay.store,
      prefix: 'guest/data',
      name: 'data',
      keyProvider: ROOT_KEY,
      anchor: new MemoryAnchor(),
      environment: systemEnvironment({ info() {}, warn() {}, error() {} }),
      limits: { ...limits, deleteGraceMs: 10 },
    };
  }

  it('is created, written, restored, collected, rekeyed, checked and attached again', async () => {
    const access = await newAccess();
    const random = seededRandom(SEED);
    await createVolume({ ...access, sizeBytes: SIZE_BYTES, mode: { kind: 'strict' } });
    await assert.rejects(createVolume({ ...access, sizeBytes: 1, mode: { kind: 'strict' } }), {
      code: 'ERR_VOLUME_EXISTS',
    });
    const volume = await attachVolume(access);
    await assert.rejects(attachVolume(access), { code: 'ERR_VOLUME_IN_USE' });
    const model = Buffer.alloc(4 * MIB);
    await scribble(volume, model, random);
    await createSnapshot(volume, 'first');
    const first = Buffer.from(model);
    await scribble(volume, model, random);
    await collectGarbage(volume, { dryRun: false });
    await same(volume, model);
    await restoreSnapshot(volume, 'first');
    await same(volume, first);
    await deleteSnapshot(volume, 'first');
    await scribble(volume, first, random);
    assert.deepEqual(await rekey(volume), { generation: 2, isDrained: true });
    await collectGarbage(volume, { dryRun: false });
    await volume.grow(2 * SIZE_BYTES);
    await volume.parts.reaper.drained();
    await volume.detach();
    const again = await attachVolume(access);
    await same(again, first);
    await again.detach();
    await isWhole(access);
  });

  it('takes a flush of up to 8 MiB in one PUT, a larger one in few', async () => {
    const access = await newAccess(DEFAULT_LIMITS);
    await createVolume({ ...access, sizeBytes: SIZE_BYTES, mode: { kind: 'strict' } });
    const volume = await attachVolume(access);
    const { counts } = volume.parts.objects;
    const data = randomBytes(24 * MIB);
    for (const [bytes, most] of [
      [BLOCK_BYTES, 1],
      [8 * MIB, 1],
      [24 * MIB, 3],
      [0, 0],
    ] as const) {
      const before = counts.puts;
      for (let at = 0; at < bytes; at += MIB)
        await volume.write(at, Buffer.from(data.subarray(at, Math.min(bytes, at + MIB))), NO);
      await volume.flush();
      const puts = counts.puts - before;
      assert.ok(puts <= most, `${puts} PUTs for a flush of ${bytes} bytes`);
    }
    await volume.detach();
    const again = await attachVolume(access);
    for (let at = 0; at < data.length; at += MIB)
      assert.ok((await again.read(at, MIB)).equals(data.subarray(at, at + MIB)));
    await again.detach();
  });

  it(`loses no flush when the gateway is killed in the middle, ${ROUNDS} times`, async () => {
    const access = await newAccess();
    const random = seededRandom(SEED);
    await createVolume({ ...access, sizeBytes: SIZE_BYTES, mode: { kind: 'strict' } });
    let volume = await attachVolume(access);
    const history: History[] = [];
    for (let writer = 0; writer < WRITERS * WRITER_BLOCKS; writer += 1) history.push({ acked: 0, begun: 0 });
    for (let round = 0; round < ROUNDS; round += 1) {
      const writers = new Writers(volume, history);
      await writers.acknowledged(1 + Math.floor(random() * 20));
      await server.killGateway();
      // Every other time the guest dies too, before the gateway is back.
      const crashes = round % 2 === 1;
      if (crashes) volume.close();
      await server.startGateway();
      if (!crashes) await writers.acknowledged(WRITERS * 2);
      volume.close();
      await writers.stopped();
      volume = await attachVolume({ ...access, takeover: true });
      for (const [block, { acked, begun }] of history.entries()) {
        const found = numberIn(await volume.read(block * BLOCK_BYTES, BLOCK_BYTES));
        const text = `SEED=${SEED} round ${round}: block ${block} holds ${found}, acknowledged ${acked}, begun ${begun}`;
        assert.ok(found >= acked && found <= begun, text);
        history[block] = { acked: found, begun };
      }
    }
    await volume.detach();
    await isWhole(access);
  });

  async function isWhole(access: VolumeAccess): Promise<void> {
    const inspected = await inspectVolume(access);
    assert.equal((await volumeStatus(inspected)).attached, false);
    assert.deepEqual((await checkVolume(inspected)).problems, []);
  }
});

/** Of one block: the newest number that a flush acknowledged, and the newest that was ever written. */
interface History {
  readonly acked: number;
  readonly begun: number;
}

/** Each writes the next number into one of its blocks and flushes, until the volume is closed. */
class Writers {
  readonly #volume: Volume;
  readonly #history: History[];
  readonly #running: Promise<void>[];
  #flushCount = 0;
  #waits: { readonly count: number; readonly done: () => void }[] = [];

  constructor(volume: Volume, history: History[]) {
    this.#volume = volume;
    this.#history = history;
    this.#running = Array.from({ length: WRITERS }, (_, writer) => this.#write(writer));
    // How they ended is asked for in `stopped`, which may come later than their end.
    for (const one of this.#running) one.catch(() => undefined);
  }

  /** Resolves when so many more flushes were acknowledged. */
  acknowledged(count: number): Promise<void> {
    return new Promise((done) => this.#waits.push({ count: this.#flushCount + count, done }));
  }

  async stopped(): Promise<void> {
    for (const end of await Promise.allSettled(this.#running)) {
      if (end.status === 'rejected' && end.reason.code !== 'ERR_VOLUME_CLOSED') throw end.reason;
    }
  }

  async #write(writer: number): Promise<never> {
    for (let turn = 0; ; turn += 1) {
      const block = writer * WRITER_BLOCKS + (turn % WRITER_BLOCKS);
      const { acked, begun } = this.#history[block] ?? { acked: 0, begun: 0 };
      const number = begun + 1;
      this.#history[block] = { acked, begun: number };
      const bytes = Buffer.alloc(BLOCK_BYTES);
      for (let at = 0; at < BLOCK_BYTES; at += 4) bytes.writeUInt32LE(number, at);
      await this.#volume.write(block * BLOCK_BYTES, bytes, NO);
      await this.#volume.flush();
      this.#history[block] = { acked: number, begun: number };
      this.#flushCount += 1;
      for (const { count, done } of this.#waits) if (count <= this.#flushCount) done();
      this.#waits = this.#waits.filter(({ count }) => count > this.#flushCount);
    }
  }
}

function numberIn(bytes: Buffer): number {
  const number = bytes.readUInt32LE(0);
  for (let at = 0; at < BLOCK_BYTES; at += 4) assert.equal(bytes.readUInt32LE(at), number, 'a torn block');
  return number;
}

/** Writes, zeroes, trims and flushes at random, unaligned too, to a volume and its model. */
async function scribble(volume: Volume, model: Buffer, random: Random): Promise<void> {
  const upTo = (most: number): number => Math.floor(random() * most);
  for (let step = 0; step < 60; step += 1) {
    const length = 1 + upTo(random() < 0.8 ? 10_000 : 300_000);
    const offset = upTo(model.length - length);
    const what = random();
    if (what < 0.7) {
      const data = randomBytes(length);
      data.copy(model, offset);
      await volume.write(offset, data, { fua: what < 0.1 });
    } else {
      model.fill(0, offset, offset + length);
      if (what < 0.85) await volume.trim(offset, length, NO);
      else await volume.writeZeroes(offset, length, { fua: false, noHole: what < 0.95 });
    }
    if (random() < 0.2) await volume.flush();
  }
  await same(volume, model);
}

async function same(volume: Volume, model: Buffer): Promise<void> {
  for (let at = 0; at < model.length; at += MIB / 4) {
    assert.ok((await volume.read(at, MIB / 4)).equals(model.subarray(at, at + MIB / 4)), `bytes from ${at}`);
  }
}
