import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { INFO, OPTION, OPTION_REPLY as REPLY, TRANSMISSION_FLAG } from '../../../guest/nbd/constants.ts';
import { MAX_OPTION_BYTES, MAX_SKIPPED_OPTION_BYTES } from '../../../guest/nbd/limits.ts';
import { MemoryDevice } from './memory-device.ts';
import { contextData, encodeOption, infoData, u16, u32 } from './raw-client.ts';
import { RunningServer } from './running-server.ts';

const SIZE_BYTES = 1_234_567;

describe('NBD handshake', () => {
  let running: RunningServer;
  before(async () => {
    running = await RunningServer.start([
      { name: 'data', description: 'the data', device: new MemoryDevice(SIZE_BYTES) },
      { name: 'löck', device: new MemoryDevice(4096, { readOnly: true, preferredBlockBytes: 70_000 }) },
    ]);
  });
  after(() => running.close());

  it('greets with fixed newstyle and no-zeroes', async () => {
    const client = await running.connect();
    const greeting = await client.hello();
    assert.equal(greeting.toString('latin1', 0, 16), 'NBDMAGICIHAVEOPT');
    assert.equal(greeting.readUInt16BE(16), 3);
    client.socket.destroy();
  });

  it('closes on client flags that it does not know', async () => {
    const client = await running.connect();
    await client.hello(7);
    assert.equal((await client.readToEnd()).length, 0);
  });

  it('lists the exports with their descriptions', async () => {
    const client = await running.connect();
    await client.hello();
    const answers = await client.option(OPTION.LIST);
    const names = answers.slice(0, -1).map(({ data }) => data.subarray(4).toString());
    assert.deepEqual(names, ['datathe data', 'löck']);
    assert.equal(answers[1]?.data.readUInt32BE(), 5);
    assert.equal(answers.at(-1)?.reply, REPLY.ACK);
    const refused = await client.option(OPTION.LIST, Buffer.from('x'));
    assert.equal(refused[0]?.reply, REPLY.ERR_INVALID);
    client.socket.destroy();
  });

  it('tells size, flags, block sizes, name and description', async () => {
    const client = await running.connect();
    await client.hello();
    const asked = infoData('data', [INFO.NAME, INFO.DESCRIPTION, INFO.BLOCK_SIZE, 77]);
    const answers = await client.option(OPTION.INFO, asked);
    const of = (type: number) =>
      answers.find(({ data }) => data.length > 1 && data.readUInt16BE() === type)?.data;
    assert.equal(of(INFO.EXPORT)?.readBigUInt64BE(2), BigInt(SIZE_BYTES));
    const flags = of(INFO.EXPORT)?.readUInt16BE(10) ?? 0;
    assert.equal(flags & TRANSMISSION_FLAG.READ_ONLY, 0);
    assert.equal(flags & TRANSMISSION_FLAG.SEND_DF, 0);
    assert.notEqual(flags & TRANSMISSION_FLAG.CAN_MULTI_CONN, 0);
    const sizes = of(INFO.BLOCK_SIZE);
    assert.deepEqual(
      [2, 6, 10].map((at) => sizes?.readUInt32BE(at)),
      [1, 4096, 32 * 1024 * 1024],
    );
    assert.equal(of(INFO.NAME)?.toString('utf8', 2), 'data');
    assert.equal(of(INFO.DESCRIPTION)?.toString('utf8', 2), 'the data');
    client.socket.destroy();
  });

  it('marks a read-only export, and prefers a power of two', async () => {
    const client = await running.connect();
    await client.hello();
    await client.option(OPTION.STRUCTURED_REPLY);
    const [info, sizes] = await client.option(OPTION.INFO, infoData('löck'));
    const flags = info?.data.readUInt16BE(10) ?? 0;
    assert.notEqual(flags & TRANSMISSION_FLAG.READ_ONLY, 0);
    assert.notEqual(flags & TRANSMISSION_FLAG.SEND_DF, 0);
    assert.equal(flags & TRANSMISSION_FLAG.SEND_TRIM, 0);
    assert.equal(sizes?.data.readUInt32BE(6), 65_536);
    client.socket.destroy();
  });

  it('goes on after refusing an export that is not there, or not named', async () => {
    const client = await running.connect();
    await client.hello();
    for (const name of ['nothing', '']) {
      const [refused] = await client.option(OPTION.GO, infoData(name));
      assert.equal(refused?.reply, REPLY.ERR_UNKNOWN);
      assert.ok((refused?.data.length ?? 0) > 0, 'in words');
    }
    assert.equal((await client.option(OPTION.GO, infoData('data'))).at(-1)?.reply, REPLY.ACK);
    client.socket.destroy();
  });

  it('refuses TLS, extended headers and what nobody knows', async () => {
    const client = await running.connect();
    await client.hello();
    assert.equal((await client.option(OPTION.STARTTLS))[0]?.reply, REPLY.ERR_POLICY);
    assert.equal((await client.option(OPTION.EXTENDED_HEADERS))[0]?.reply, REPLY.ERR_UNSUP);
    assert.equal((await client.option(4711, Buffer.alloc(100)))[0]?.reply, REPLY.ERR_UNSUP);
    client.socket.destroy();
  });

  it('selects base:allocation, after structured replies only', async () => {
    const client = await running.connect();
    await client.hello();
    const set = contextData('data', ['base:allocation', 'x:y', 'base:allocation']);
    assert.equal((await client.option(OPTION.SET_META_CONTEXT, set))[0]?.reply, REPLY.ERR_INVALID);
    assert.equal((await client.option(OPTION.STRUCTURED_REPLY, u16(1)))[0]?.reply, REPLY.ERR_INVALID);
    await client.option(OPTION.STRUCTURED_REPLY);
    const answers = await client.option(OPTION.SET_META_CONTEXT, set);
    assert.deepEqual(
      answers.map(({ reply }) => reply),
      [REPLY.META_CONTEXT, REPLY.ACK],
    );
    assert.equal(answers[0]?.data.toString('utf8', 4), 'base:allocation');
    const other = contextData('data', ['qemu:dirty-bitmap:x', 'base:']);
    assert.deepEqual(
      (await client.option(OPTION.SET_META_CONTEXT, other)).map(({ reply }) => reply),
      [REPLY.ACK],
    );
    for (const queries of [[], ['base:'], ['base:allocation']]) {
      const listed = await client.option(OPTION.LIST_META_CONTEXT, contextData('data', queries));
      assert.equal(listed[0]?.reply, REPLY.META_CONTEXT);
    }
    const unknown = await client.option(OPTION.LIST_META_CONTEXT, contextData('no', []));
    assert.equal(unknown[0]?.reply, REPLY.ERR_UNKNOWN);
    client.socket.destroy();
  });

  it('acknowledges ABORT and closes', async () => {
    const client = await running.connect();
    await client.hello();
    assert.equal((await client.option(OPTION.ABORT))[0]?.reply, REPLY.ACK);
    assert.equal((await client.readToEnd()).length, 0);
  });

  it('serves EXPORT_NAME with and without the zeroes', async () => {
    for (const [flags, bytes] of [
      [1, 134],
      [3, 10],
      [0, 134],
    ] as const) {
      const client = await running.connect();
      await client.hello(flags);
      client.send(encodeOption(OPTION.EXPORT_NAME, Buffer.from('data')));
      const reply = await client.read(bytes);
      assert.equal(reply.readBigUInt64BE(), BigInt(SIZE_BYTES));
      assert.equal(await client.ask({ type: 3 }), 0);
      client.disconnect();
    }
  });

  it('closes on an EXPORT_NAME that it cannot serve', async () => {
    for (const name of ['nothing', 'x'.repeat(5000), 'x'.repeat(70_000), 'da\0ta']) {
      const client = await running.connect();
      await client.hello();
      client.send(encodeOption(OPTION.EXPORT_NAME, Buffer.from(name)));
      assert.equal((await client.readToEnd()).length, 0);
    }
  });

  it('answers TOO_BIG and goes on, and closes on the absurd', async () => {
    const client = await running.connect();
    await client.hello();
    const big = await client.option(OPTION.GO, Buffer.alloc(MAX_OPTION_BYTES + 1));
    assert.equal(big[0]?.reply, REPLY.ERR_TOO_BIG);
    assert.equal((await client.option(OPTION.LIST)).at(-1)?.reply, REPLY.ACK);
    client.send(encodeOption(OPTION.GO, Buffer.alloc(0), MAX_SKIPPED_OPTION_BYTES + 1));
    assert.equal((await client.readToEnd()).length, 0);
  });

  const malformed: Record<string, Buffer> = {
    nothing: Buffer.alloc(0),
    'a length over the end': Buffer.concat([u32(50), Buffer.from('data')]),
    'a name over the limit': Buffer.concat([u32(5000), Buffer.alloc(6000)]),
    'a zero in the name': Buffer.concat([u32(4), Buffer.from('d\0ta'), u16(0)]),
    'fewer requests than it says': Buffer.concat([u32(4), Buffer.from('data'), u16(2), u16(0)]),
    'more bytes than it says': Buffer.concat([u32(4), Buffer.from('data'), u16(0), u16(0)]),
    'too many requests': Buffer.concat([u32(4), Buffer.from('data'), u16(65), Buffer.alloc(130)]),
  };
  for (const [what, data] of Object.entries(malformed)) {
    it(`refuses a GO with ${what}, in words, and goes on`, async () => {
      const client = await running.connect();
      await client.hello();
      const [refused] = await client.option(OPTION.GO, data);
      assert.equal(refused?.reply, REPLY.ERR_INVALID);
      assert.ok((refused?.data.length ?? 0) > 0);
      assert.equal((await client.option(OPTION.GO, infoData('data'))).at(-1)?.reply, REPLY.ACK);
      client.socket.destroy();
    });
  }

  it('refuses context queries over their limits', async () => {
    const client = await running.connect();
    await client.hello();
    await client.option(OPTION.STRUCTURED_REPLY);
    const many = contextData(
      'data',
      Array.from({ length: 65 }, () => 'a:b'),
    );
    assert.equal((await client.option(OPTION.SET_META_CONTEXT, many))[0]?.reply, REPLY.ERR_INVALID);
    const long = contextData('data', ['x'.repeat(4097)]);
    assert.equal((await client.option(OPTION.SET_META_CONTEXT, long))[0]?.reply, REPLY.ERR_INVALID);
    client.socket.destroy();
  });

  it('closes on an option without its magic, with one log line however often', async () => {
    running.logged.length = 0;
    for (let round = 0; round < 5; round += 1) {
      const client = await running.connect();
      await client.hello();
      client.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
      assert.equal((await client.readToEnd()).length, 0);
    }
    assert.equal(running.logged.filter((line) => line.includes('without its magic')).length, 1);
  });
});
