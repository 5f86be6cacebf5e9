import assert from 'node:assert/strict';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { COMMAND, NBD_ERROR, OPTION, OPTION_REPLY } from '../../../guest/nbd/constants.ts';
import { streamPair } from '../../../shared/transport/pair.ts';
import { GatedDevice, settle } from './gated-device.ts';
import { MemoryDevice } from './memory-device.ts';
import { RunningServer } from './running-server.ts';

describe('NBD limits', () => {
  const device = new GatedDevice(8 * 1024 * 1024);
  let running: RunningServer;
  before(async () => {
    const limits = { inflightRequests: 8, inflightBytes: 64 * 1024, ownBytes: 0, connections: 3 };
    running = await RunningServer.start([{ name: '', device }], limits);
  });
  after(() => running.close());

  for (const [length, most] of [
    [16, 8],
    [16 * 1024, 4],
    // One request is let in however large it is.
    [1024 * 1024, 1],
  ] as const) {
    it(`has at most ${most} reads of ${length} bytes at once, and answers all`, async () => {
      device.mostReads = 0;
      const client = await running.open();
      const asked = 40;
      for (let cookie = 0; cookie < asked; cookie += 1) {
        client.request({ type: COMMAND.READ, length, cookie: BigInt(cookie) });
      }
      await device.untilWaiting(most);
      await settle();
      const seen = new Set<bigint>();
      const drain = setInterval(() => device.letAllGo(), 1);
      while (seen.size < asked) seen.add((await client.answer(length)).cookie);
      clearInterval(drain);
      assert.equal(device.mostReads, most);
      client.disconnect();
    });
  }

  it('reads no more requests from a client that does not take its replies', async () => {
    const client = await running.open();
    client.socket.pause();
    const length = 60_000;
    const asked = 200;
    let served = 0;
    const drain = setInterval(() => {
      served += device.waiting.length;
      device.letAllGo();
    }, 1);
    for (let cookie = 0; cookie < asked; cookie += 1) client.request({ type: COMMAND.READ, length });
    for (let before = -1; before !== served; ) {
      before = served;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.ok(served < asked / 4, `${served} replies of ${length} bytes went into the kernel's buffers`);
    client.socket.resume();
    for (let count = 0; count < asked; count += 1) await client.answer(length);
    clearInterval(drain);
    client.disconnect();
  });

  it('keeps a large write out of memory until it fits, and then takes it whole', async () => {
    const client = await running.open();
    client.request({ type: COMMAND.READ, length: 16 });
    await device.untilWaiting(1);
    const data = Buffer.alloc(1024 * 1024, 3);
    client.request({ type: COMMAND.WRITE, length: data.length, cookie: 5n }, data);
    await settle();
    device.letAllGo();
    await client.answer(16);
    assert.equal((await client.answer()).cookie, 5n);
    client.disconnect();
  });

  it('refuses connections over the limit, with one log line, and serves again when one leaves', async () => {
    running.logged.length = 0;
    const clients = [await running.open(), await running.open(), await running.open()];
    for (let round = 0; round < 3; round += 1) {
      const refused = await running.connect();
      assert.equal((await refused.readToEnd()).length, 0);
    }
    assert.equal(running.logged.filter((line) => line.includes('connection refused')).length, 1);
    const [first] = clients;
    assert.ok(first);
    const closed = once(first.socket, 'close');
    first.disconnect();
    await closed;
    while (running.server.connectionCount === 3) await settle();
    clients[0] = await running.open();
    for (const client of clients) client.disconnect();
  });

  it('is a socket for its own user only', async () => {
    assert.equal((await stat(running.path)).mode & 0o777, 0o600);
  });
});

describe('NBD exports that go away', () => {
  it('answers what was begun, refuses what comes, and closes', async (t) => {
    const device = new GatedDevice(1024 * 1024);
    const running = await RunningServer.start([
      { name: 'a', device },
      { name: 'b', device: new MemoryDevice(512) },
    ]);
    t.after(() => running.close());
    const client = await running.open('a');
    const other = await running.open('b');
    client.request({ type: COMMAND.READ, length: 16, cookie: 1n });
    await device.untilWaiting(1);
    const removed = running.server.remove('a', 5000);
    client.request({ type: COMMAND.WRITE, length: 3, cookie: 2n }, Buffer.alloc(3));
    const late = await client.answer();
    assert.deepEqual([late.cookie, late.kind === 'simple' && late.error], [2n, NBD_ERROR.ESHUTDOWN]);
    device.letAllGo();
    assert.equal((await client.answer(16)).cookie, 1n);
    assert.equal((await client.readToEnd()).length, 0);
    await removed;
    assert.equal(await other.ask({ type: COMMAND.FLUSH }), 0);
    await assert.rejects(running.open('a'), /no export is named/);
    other.disconnect();
  });

  it('cuts a connection that is not done within its grace', async (t) => {
    const device = new GatedDevice(1024 * 1024);
    const running = await RunningServer.start([{ name: '', device }]);
    t.after(() => running.close());
    const client = await running.open();
    client.request({ type: COMMAND.READ, length: 16 });
    await device.untilWaiting(1);
    await running.server.remove('', 10);
    assert.equal((await client.readToEnd()).length, 0);
    device.letAllGo();
  });

  it('takes the kernel’s connections along, and nobody else’s', async (t) => {
    const served = { name: 'a', device: new MemoryDevice(512) };
    const running = await RunningServer.start([served]);
    t.after(() => running.close());
    const choosing = await running.connect();
    await choosing.hello();
    const [near, far] = streamPair();
    near.on('end', () => near.end()).resume();
    const closed = running.server.serveKernel(far, served);
    await running.server.remove('nothing', 5000);
    assert.equal(running.server.connectionCount, 2);
    await running.server.remove('a', 5000);
    await closed;
    assert.equal((await choosing.option(OPTION.LIST)).at(-1)?.reply, OPTION_REPLY.ACK);
  });

  it('takes a name once', async (t) => {
    const running = await RunningServer.start([{ name: 'a', device: new MemoryDevice(1) }]);
    t.after(() => running.close());
    const twice = () => running.server.add({ name: 'a', device: new MemoryDevice(1) });
    assert.throws(twice, { code: 'ERR_NBD_EXPORT' });
  });
});

describe('NBD over several connections', () => {
  it('flushes on one what was answered on another', async (t) => {
    const order: string[] = [];
    class OrderedDevice extends MemoryDevice {
      override async write(...args: Parameters<MemoryDevice['write']>): Promise<void> {
        await super.write(...args);
        order.push('write');
      }
      override async flush(): Promise<void> {
        order.push('flush');
      }
    }
    const running = await RunningServer.start([{ name: '', device: new OrderedDevice(4096) }]);
    t.after(() => running.close());
    const [first, second] = [await running.open(), await running.open()];
    assert.equal(await first.ask({ type: COMMAND.WRITE, length: 10 }, Buffer.alloc(10)), 0);
    assert.equal(await second.ask({ type: COMMAND.FLUSH }), 0);
    assert.deepEqual(order, ['write', 'flush']);
    first.disconnect();
    second.disconnect();
  });
});
