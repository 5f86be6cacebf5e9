import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COMMAND, NBD_ERROR } from '../../guest/nbd/constants.ts';
import { attachVolume } from '../../guest/volume/attach.ts';
import { createVolume, type VolumeAccess } from '../../guest/volume/create.ts';
import { systemEnvironment } from '../../guest/volume/environment.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { FaultyStore } from '../../shared/objects/fault.ts';
import { createMemoryStore } from '../../shared/objects/memory.ts';
import { RawClient } from '../guest/nbd/raw-client.ts';
import { RunningServer } from '../guest/nbd/running-server.ts';
import { MemoryAnchor } from './memory-anchor.ts';
import { ROOT_KEY, SMALL_LIMITS } from './world.ts';

/** Deadlines of a fraction of a second: what an NBD client is told after them is the same as after minutes. */
const LIMITS = { ...SMALL_LIMITS, attemptMs: 100, outageTimeoutMs: 400 };
const FLUSH = { type: COMMAND.FLUSH };

function write(client: RawClient, block: number, text: string): Promise<number> {
  const offset = block * BLOCK_BYTES;
  return client.ask({ type: COMMAND.WRITE, offset, length: BLOCK_BYTES }, Buffer.alloc(BLOCK_BYTES, text));
}

async function connected(server: RunningServer): Promise<RawClient> {
  const client = await RawClient.connect(server.path);
  await client.go();
  return client;
}

test('past the deadline every client gets EIO for its flush, and no later success hides what was lost', async () => {
  const store = new FaultyStore(createMemoryStore(), { seed: 1, rates: {} });
  const access: VolumeAccess = {
    store,
    prefix: 'vol',
    name: 'data',
    keyProvider: ROOT_KEY,
    anchor: new MemoryAnchor(),
    environment: systemEnvironment({ info() {}, warn() {}, error() {} }),
    limits: LIMITS,
  };
  await createVolume({ ...access, sizeBytes: 2 ** 20, mode: { kind: 'strict' } });
  const volume = await attachVolume(access);
  const server = await RunningServer.start([{ name: '', device: volume }]);
  const clients = [await connected(server), await connected(server)];
  const [first, second] = clients;
  assert.ok(first && second);
  try {
    assert.equal(await write(first, 0, 'kept'), 0);
    assert.equal(await first.ask(FLUSH), 0);
    store.setUnreachable(Number.POSITIVE_INFINITY);
    assert.equal(await write(first, 1, 'in doubt'), 0);
    assert.equal(await write(second, 2, 'in doubt'), 0);
    const answers = await Promise.all(clients.map((client) => client.ask(FLUSH)));
    assert.deepEqual(answers, [NBD_ERROR.EIO, NBD_ERROR.EIO]);
    store.setUnreachable(0);
    for (const client of clients) {
      assert.equal(await client.ask(FLUSH), NBD_ERROR.EIO);
      assert.equal(await write(client, 3, 'late'), NBD_ERROR.EIO);
    }
  } finally {
    for (const client of clients) client.disconnect();
    await server.close();
    volume.close();
  }
  const again = await attachVolume({ ...access, takeover: true });
  assert.deepEqual(await again.read(0, BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES, 'kept'));
  for (const block of [1, 2]) {
    const found = await again.read(block * BLOCK_BYTES, BLOCK_BYTES);
    const possible = ['in doubt', '\0'].map((text) => Buffer.alloc(BLOCK_BYTES, text));
    assert.ok(possible.some((bytes) => bytes.equals(found)));
  }
  assert.deepEqual(await again.read(3 * BLOCK_BYTES, BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES));
  await again.detach();
});
