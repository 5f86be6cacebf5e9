import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { CHUNK, COMMAND, COMMAND_FLAG, NBD_ERROR } from '../../../guest/nbd/constants.ts';
import { MAX_PAYLOAD_BYTES } from '../../../guest/nbd/limits.ts';
import { PosternError } from '../../../shared/errors.ts';
import { MemoryDevice } from './memory-device.ts';
import type { RawClient, RequestFields } from './raw-client.ts';
import { RunningServer } from './running-server.ts';

const SIZE_BYTES = 40 * 1024 * 1024 + 511;

/** Writes, reads back and compares: the connection is alive and in step. */
async function assertAlive(client: RawClient): Promise<void> {
  const data = randomBytes(777);
  assert.equal(await client.ask({ type: COMMAND.WRITE, offset: 99, length: 777 }, data), 0);
  client.request({ type: COMMAND.READ, offset: 99, length: 777, cookie: 0xfedcba9876543210n });
  const answer = await client.answer(777);
  assert.equal(answer.cookie, 0xfedcba9876543210n);
  const read = answer.kind === 'simple' ? answer.data : answer.chunks[0]?.data.subarray(8);
  assert.ok(read?.equals(data));
}

for (const structured of [false, true]) {
  describe(`NBD requests, ${structured ? 'structured' : 'simple'} replies`, () => {
    let running: RunningServer;
    let device: MemoryDevice;
    before(async () => {
      device = new MemoryDevice(SIZE_BYTES);
      running = await RunningServer.start([
        { name: 'data', device },
        { name: 'locked', device: new MemoryDevice(SIZE_BYTES, { readOnly: true }) },
      ]);
    });
    after(() => running.close());

    it('reads and writes up to the last odd byte', async () => {
      const client = await running.open('data', { structured });
      const tail = randomBytes(1000);
      const offset = SIZE_BYTES - 1000;
      assert.equal(await client.ask({ type: COMMAND.WRITE, offset, length: 1000 }, tail), 0);
      client.request({ type: COMMAND.READ, offset, length: 1000 });
      const answer = await client.answer(1000);
      const read = answer.kind === 'simple' ? answer.data : answer.chunks[0]?.data.subarray(8);
      assert.ok(read?.equals(tail));
      await assertAlive(client);
      client.disconnect();
      assert.equal((await client.readToEnd()).length, 0);
    });

    it('carries 32 MiB both ways', async () => {
      const client = await running.open('data', { structured });
      const data = randomBytes(MAX_PAYLOAD_BYTES);
      assert.equal(await client.ask({ type: COMMAND.WRITE, offset: 5, length: data.length }, data), 0);
      client.request({ type: COMMAND.READ, offset: 5, length: data.length });
      const answer = await client.answer(data.length);
      const parts =
        answer.kind === 'simple' ? [answer.data] : answer.chunks.map((chunk) => chunk.data.subarray(8));
      assert.ok(Buffer.concat(parts).equals(data));
      client.disconnect();
    });

    const { EINVAL, ENOSPC, EPERM, ENOTSUP } = NBD_ERROR;
    const bad: readonly (readonly [string, RequestFields, number])[] = [
      ['a read past the end', { type: COMMAND.READ, offset: SIZE_BYTES - 1, length: 2 }, EINVAL],
      ['a read at 2^64-1', { type: COMMAND.READ, offset: 2n ** 64n - 1n, length: 1 }, EINVAL],
      ['a read over the limit', { type: COMMAND.READ, length: MAX_PAYLOAD_BYTES + 1 }, EINVAL],
      ['a write past the end', { type: COMMAND.WRITE, offset: SIZE_BYTES - 1, length: 2 }, ENOSPC],
      ['a write over the limit', { type: COMMAND.WRITE, length: MAX_PAYLOAD_BYTES + 1 }, EINVAL],
      ['zeroes past the end', { type: COMMAND.WRITE_ZEROES, offset: SIZE_BYTES, length: 1 }, ENOSPC],
      ['a trim past the end', { type: COMMAND.TRIM, length: 0xffffffff }, EINVAL],
      ['a cache past the end', { type: COMMAND.CACHE, offset: SIZE_BYTES, length: 1 }, EINVAL],
      ['an unknown command', { type: 9 }, EINVAL],
      ['another', { type: 65535, length: 0xffffffff }, EINVAL],
      ['an unknown flag', { type: COMMAND.READ, flags: 64, length: 1 }, EINVAL],
      ['a flag of another command', { type: COMMAND.WRITE, flags: COMMAND_FLAG.NO_HOLE, length: 9 }, EINVAL],
      ['block status of no context', { type: COMMAND.BLOCK_STATUS, length: 1 }, EINVAL],
      [
        'a fast zero that would be slow',
        { type: COMMAND.WRITE_ZEROES, flags: COMMAND_FLAG.FAST_ZERO | COMMAND_FLAG.NO_HOLE, length: 1 },
        ENOTSUP,
      ],
    ];
    for (const [what, fields, error] of bad) {
      it(`refuses ${what} and lives on`, async () => {
        const client = await running.open('data', { structured });
        const payload = Buffer.alloc(fields.type === COMMAND.WRITE ? (fields.length ?? 0) : 0);
        assert.equal(await client.ask(fields, payload), error);
        await assertAlive(client);
        client.disconnect();
      });
    }

    it('refuses every change of a read-only export', async () => {
      const client = await running.open('locked', { structured });
      for (const type of [COMMAND.WRITE, COMMAND.TRIM, COMMAND.WRITE_ZEROES]) {
        const payload = Buffer.alloc(type === COMMAND.WRITE ? 100 : 0);
        assert.equal(await client.ask({ type, length: 100 }, payload), EPERM);
      }
      assert.equal(await client.ask({ type: COMMAND.FLUSH }), 0);
      client.disconnect();
    });

    it('accepts requests of no bytes', async () => {
      const client = await running.open('data', { structured });
      for (const type of [COMMAND.READ, COMMAND.WRITE, COMMAND.TRIM, COMMAND.WRITE_ZEROES, COMMAND.CACHE]) {
        assert.equal(await client.ask({ type, offset: SIZE_BYTES, length: 0 }), 0);
      }
      await assertAlive(client);
      client.disconnect();
    });

    it('zeroes, trims, caches and flushes, with FUA', async () => {
      const client = await running.open('data', { structured });
      const before = { fuas: device.fuas, flushes: device.flushes };
      const flags = COMMAND_FLAG.FUA;
      const ones = Buffer.alloc(300_000, 1);
      await client.ask({ type: COMMAND.WRITE, flags, length: ones.length }, ones);
      await client.ask({ type: COMMAND.WRITE_ZEROES, flags: flags | COMMAND_FLAG.NO_HOLE, length: 100_000 });
      await client.ask({ type: COMMAND.TRIM, flags, offset: 150_000, length: 100_000 });
      await client.ask({ type: COMMAND.CACHE, offset: 7, length: 8 });
      await client.ask({ type: COMMAND.FLUSH, flags });
      assert.equal(device.fuas - before.fuas, 3);
      assert.equal(device.flushes - before.flushes, 1);
      assert.deepEqual(device.cached.at(-1), [7, 8]);
      const wanted = Buffer.alloc(300_000, 1).fill(0, 0, 100_000).fill(0, 150_000, 250_000);
      assert.ok((await device.read(0, 300_000)).equals(wanted));
      client.disconnect();
    });

    it('tells each failure of the device by its own error', async (t) => {
      const client = await running.open('data', { structured });
      const failures = [
        ['ERR_VOLUME_POISONED', NBD_ERROR.EIO],
        ['ERR_STORE_UNAVAILABLE', NBD_ERROR.EIO],
        ['ERR_VOLUME_LIMIT', NBD_ERROR.ENOSPC],
        ['ERR_VOLUME_RANGE', NBD_ERROR.EINVAL],
        ['ERR_VOLUME_FENCED', NBD_ERROR.ESHUTDOWN],
        ['ERR_VOLUME_CLOSED', NBD_ERROR.ESHUTDOWN],
      ] as const;
      for (const [code, error] of failures) {
        const flush = t.mock.method(device, 'flush', () => Promise.reject(new PosternError(code, 'no luck')));
        assert.equal(await client.ask({ type: COMMAND.FLUSH }), error);
        flush.mock.restore();
      }
      await assertAlive(client);
      assert.ok(running.logged.some((line) => line.includes('ERR_VOLUME_POISONED')));
      client.disconnect();
    });

    it('cuts off a client whose request has no magic', async () => {
      const client = await running.open('data', { structured });
      client.request({ type: COMMAND.FLUSH, magic: 0x12345678 });
      assert.equal((await client.readToEnd()).length, 0);
    });

    it('answers what is in flight before it closes on DISC', async (t) => {
      const client = await running.open('data', { structured });
      const gate = Promise.withResolvers<void>();
      const flush = t.mock.method(device, 'flush', () => gate.promise);
      client.request({ type: COMMAND.FLUSH, cookie: 1n });
      client.request({ type: COMMAND.DISC });
      setTimeout(() => gate.resolve(), 20);
      assert.equal((await client.answer()).cookie, 1n);
      assert.equal((await client.readToEnd()).length, 0);
      flush.mock.restore();
    });

    it('answers what is in flight to a client that has only half closed', async () => {
      const client = await running.open('data', { structured });
      client.request({ type: COMMAND.FLUSH, cookie: 2n });
      client.socket.end();
      assert.equal((await client.answer()).cookie, 2n);
    });
  });
}

describe('NBD structured replies', () => {
  const device = new MemoryDevice(64 * 1024 * 1024);
  let running: RunningServer;
  before(async () => {
    running = await RunningServer.start([{ name: '', device }]);
    await device.write(1024 * 1024, Buffer.alloc(128 * 1024, 7), { fua: false });
  });
  after(() => running.close());

  it('tells holes instead of sending them', async () => {
    const client = await running.open('', { structured: true });
    client.request({ type: COMMAND.READ, offset: 0, length: 4 * 1024 * 1024 });
    const answer = await client.answer();
    assert.equal(answer.kind, 'structured');
    const chunks = answer.kind === 'structured' ? answer.chunks : [];
    assert.deepEqual(
      chunks.map(({ type, data }) => [type, Number(data.readBigUInt64BE()), data.length]),
      [
        [CHUNK.OFFSET_HOLE, 0, 12],
        [CHUNK.OFFSET_DATA, 1024 * 1024, 8 + 128 * 1024],
        [CHUNK.OFFSET_HOLE, 1024 * 1024 + 128 * 1024, 12],
      ],
    );
    client.disconnect();
  });

  it('sends one chunk when asked not to fragment', async () => {
    const client = await running.open('', { structured: true });
    client.request({ type: COMMAND.READ, flags: COMMAND_FLAG.DF, length: 4 * 1024 * 1024 });
    const answer = await client.answer();
    assert.equal(answer.kind === 'structured' && answer.chunks.length, 1);
    client.disconnect();
  });

  it('says errors in words', async () => {
    const client = await running.open('', { structured: true });
    client.request({ type: COMMAND.READ, offset: device.sizeBytes, length: 1 });
    const answer = await client.answer();
    const data = answer.kind === 'structured' ? answer.chunks[0]?.data : undefined;
    assert.match(data?.toString('utf8', 6) ?? '', /READ ends after the last/);
    assert.equal(data?.readUInt16BE(4), (data?.length ?? 0) - 6);
    client.disconnect();
  });

  it('answers block status, merged, and one extent when asked for one', async () => {
    const client = await running.open('', { allocation: true });
    for (const [flags, count] of [
      [0, 3],
      [COMMAND_FLAG.REQ_ONE, 1],
    ] as const) {
      client.request({ type: COMMAND.BLOCK_STATUS, flags, offset: 0, length: 64 * 1024 * 1024 });
      const answer = await client.answer();
      const data =
        answer.kind === 'structured' ? (answer.chunks[0]?.data ?? Buffer.alloc(0)) : Buffer.alloc(0);
      assert.equal(data.length, 4 + 8 * count);
      assert.deepEqual([data.readUInt32BE(4), data.readUInt32BE(8)], [1024 * 1024, 3]);
      if (count > 1) assert.deepEqual([data.readUInt32BE(12), data.readUInt32BE(16)], [128 * 1024, 0]);
    }
    assert.equal(await client.ask({ type: COMMAND.BLOCK_STATUS, length: 0 }), NBD_ERROR.EINVAL);
    client.disconnect();
  });

  it('serves a device that has grown', async () => {
    const client = await running.open('', { structured: true });
    const end = { type: COMMAND.WRITE, offset: device.sizeBytes, length: 1 };
    assert.equal(await client.ask(end, Buffer.alloc(1)), NBD_ERROR.ENOSPC);
    device.sizeBytes += 1;
    assert.equal(await client.ask(end, Buffer.alloc(1)), 0);
    client.disconnect();
  });
});
