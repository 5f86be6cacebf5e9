import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { COMMAND, NBD_ERROR } from '../../../guest/nbd/constants.ts';
import { DEFAULT_LIMITS, MAX_PAYLOAD_BYTES, type NbdLimits } from '../../../guest/nbd/limits.ts';
import { GatedDevice, settle } from './gated-device.ts';
import { MemoryDevice } from './memory-device.ts';
import type { RawClient } from './raw-client.ts';
import { RunningServer } from './running-server.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE_BYTES = 64 * MIB;

async function start(t: TestContext, device: MemoryDevice, limits: Partial<NbdLimits> = {}) {
  const running = await RunningServer.start([{ name: '', device }], limits);
  t.after(() => running.close());
  return running;
}

/** Says that 32 MiB will come, and sends none of it. */
async function stall(running: RunningServer): Promise<RawClient> {
  const client = await running.open();
  client.request({ type: COMMAND.WRITE, length: MAX_PAYLOAD_BYTES });
  return client;
}

async function readAndWrite(client: RawClient, length: number): Promise<void> {
  assert.equal(await client.ask({ type: COMMAND.WRITE, length }, Buffer.alloc(length, 7)), 0);
  client.request({ type: COMMAND.READ, length });
  assert.ok((await client.answer(length)).data.every((byte) => byte === 7));
}

describe('NBD budget of a server', () => {
  it('is shared by its connections, and each has some of its own', async (t) => {
    const device = new GatedDevice(SIZE_BYTES);
    const running = await start(t, device, { inflightBytes: 64 * KIB, ownBytes: 32 * KIB });
    const clients = [await running.open(), await running.open(), await running.open()];
    for (const client of clients) {
      for (let count = 0; count < 20; count += 1) client.request({ type: COMMAND.READ, length: 16 * KIB });
    }
    await settle();
    assert.equal(device.waiting.length, (64 + 3 * 32) / 16);
    assert.equal(running.server.heldBytes, (64 + 3 * 32) * KIB);
    const drain = setInterval(() => device.letAllGo(), 1);
    for (const client of clients) {
      for (let count = 0; count < 20; count += 1) await client.answer(16 * KIB);
      client.disconnect();
    }
    clearInterval(drain);
    assert.equal(device.mostReads, (64 + 3 * 32) / 16);
    await untilLeft(running, 0);
  });

  it('goes on for others while large writes are announced and not sent', async (t) => {
    const running = await start(t, new MemoryDevice(SIZE_BYTES));
    const stalled = [await stall(running), await stall(running)];
    await settle();
    assert.equal(running.server.heldBytes, MAX_PAYLOAD_BYTES, 'the second one waits');
    const others = [await running.open(), await running.open()];
    for (const length of [4 * KIB, MIB, 4 * KIB]) {
      await Promise.all(others.map((other) => readAndWrite(other, length)));
    }
    // More than its own at once: one after the other.
    const [kernel] = others;
    assert.ok(kernel);
    for (let count = 0; count < 64; count += 1) kernel.request({ type: COMMAND.READ, length: 128 * KIB });
    for (let count = 0; count < 64; count += 1) await kernel.answer(128 * KIB);
    for (const client of [...stalled, ...others]) client.socket.destroy();
    await untilLeft(running, 0);
  });

  it('lets a 32 MiB read in, however many small requests others send', async (t) => {
    const device = new GatedDevice(SIZE_BYTES);
    const running = await start(t, device);
    const others = [await running.open(), await running.open()];
    const length = 256 * KIB;
    const asking = others.map(async (other) => {
      for (let count = 0; count < 250; count += 1) other.request({ type: COMMAND.READ, length });
      for (;;) {
        await other.answer(length);
        other.request({ type: COMMAND.READ, length });
      }
    });
    await device.untilWaiting((DEFAULT_LIMITS.inflightBytes + 2 * DEFAULT_LIMITS.ownBytes) / length);
    const client = await running.open();
    client.request({ type: COMMAND.READ, length: MAX_PAYLOAD_BYTES });
    await settle();
    let isIn = false;
    device.entered = (entered) => {
      isIn ||= entered === MAX_PAYLOAD_BYTES;
    };
    for (let count = 0; count < 400 && !isIn; count += 1) {
      device.waiting.shift()?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.ok(isIn, 'it still waits after 100 MiB of others');
    const drain = setInterval(() => device.letAllGo(), 1);
    assert.equal((await client.answer(MAX_PAYLOAD_BYTES)).data.length, MAX_PAYLOAD_BYTES);
    for (const { socket } of [client, ...others]) socket.destroy();
    await Promise.allSettled(asking);
    await untilLeft(running, 0);
    clearInterval(drain);
  });

  it('lets a write in whose client waited for it, whole', async (t) => {
    const device = new MemoryDevice(SIZE_BYTES);
    const running = await start(t, device);
    const stalled = await stall(running);
    await settle();
    const client = await running.open();
    const data = Buffer.alloc(MAX_PAYLOAD_BYTES, 5);
    client.request({ type: COMMAND.WRITE, length: data.length, cookie: 9n }, data);
    await settle();
    stalled.socket.destroy();
    assert.equal((await client.answer()).cookie, 9n);
    assert.ok((await device.read(0, data.length)).equals(data));
    client.disconnect();
    await untilLeft(running, 0);
  });

  it('refuses what waits when the export goes away', async (t) => {
    const running = await start(t, new MemoryDevice(SIZE_BYTES));
    const stalled = await stall(running);
    await settle();
    const client = await running.open();
    client.request({ type: COMMAND.READ, length: MAX_PAYLOAD_BYTES, cookie: 3n });
    await settle();
    const removed = running.server.remove('', 5000);
    const answer = await client.answer();
    assert.deepEqual([answer.cookie, answer.kind === 'simple' && answer.error], [3n, NBD_ERROR.ESHUTDOWN]);
    assert.equal((await client.readToEnd()).length, 0);
    stalled.socket.destroy();
    await removed;
    assert.equal(running.server.heldBytes, 0);
  });

  it('counts block status as its longest reply', async (t) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    class SlowDevice extends MemoryDevice {
      override async blockStatus(offset: number, length: number) {
        await promise;
        return super.blockStatus(offset, length);
      }
    }
    const running = await start(t, new SlowDevice(SIZE_BYTES), { inflightBytes: 128 * KIB, ownBytes: 0 });
    const client = await running.open('', { allocation: true });
    for (let count = 0; count < 5; count += 1) client.request({ type: COMMAND.BLOCK_STATUS, length: MIB });
    await settle();
    assert.equal(running.server.heldBytes, 128 * KIB);
    resolve();
    for (let count = 0; count < 5; count += 1) await client.answer();
    client.disconnect();
    await untilLeft(running, 0);
  });

  it('sees that a client is gone while it waits, and lets those behind it in', async (t) => {
    const running = await start(t, new MemoryDevice(SIZE_BYTES), { inflightBytes: 40 * MIB });
    const stalled = await stall(running);
    await settle();
    const gone = await stall(running);
    const client = await running.open();
    client.request({ type: COMMAND.READ, length: 2 * MIB });
    await settle();
    assert.equal(running.server.heldBytes, MAX_PAYLOAD_BYTES);
    gone.socket.destroy();
    await client.answer(2 * MIB);
    await untilLeft(running, 2);
    client.disconnect();
    stalled.socket.destroy();
    await untilLeft(running, 0);
  });
});

/** Connections close; those that are left hold nothing that is not theirs: none, nothing at all. */
async function untilLeft(running: RunningServer, count: number): Promise<void> {
  while (running.server.connectionCount > count) await settle();
  await settle();
  if (count === 0) assert.equal(running.server.heldBytes, 0);
}
