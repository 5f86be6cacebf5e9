import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { encodeProxyV2 } from '../../guest/inbound/proxy-v2.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { encodeStreamHeader } from '../../shared/wire/header.ts';
import { encodeInboundOpen } from '../../shared/wire/open.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { decodeReply, REPLY_BYTES } from '../../shared/wire/reply.ts';
import { type Fixture, listenTcp, readAll, startFixture } from './agent-fixture.ts';

const LOCAL = { address: '198.51.100.1', port: 443 };

describe('inbound streams', () => {
  let fixture: Fixture;
  let workload: Awaited<ReturnType<typeof listenTcp>>;
  let closedPort: number;

  before(async () => {
    workload = await listenTcp((socket) => socket.pipe(socket));
    const gone = await listenTcp(() => {});
    closedPort = gone.port;
    gone.close();
    fixture = await startFixture({
      policy: `ingress:
  - {port: 80, to: "127.0.0.1:${workload.port}"}
  - {port: 443, to: "127.0.0.1:${workload.port}", proxyProtocol: v2}
  - {port: 22, to: "127.0.0.1:${workload.port}", from: [203.0.113.0/24]}
  - {port: 25, to: "127.0.0.1:${closedPort}"}`,
    });
  });
  after(async () => {
    await fixture.close();
    workload.close();
  });

  it('reach the workload, both ways, with half-close', async () => {
    const { stream, status } = await fixture.parent.openInbound(fixture.inboundPath, 80);
    assert.equal(status, 'ok');
    stream.end('hello workload');
    assert.equal((await readAll(stream)).bytes.toString(), 'hello workload');
  });

  for (const client of [
    { address: '203.0.113.7', port: 40_000 },
    { address: '2001:db8::7', port: 40_001 },
  ]) {
    it(`carry PROXY v2 before the first byte of ${client.address}`, async () => {
      const { stream, status } = await fixture.parent.openInbound(fixture.inboundPath, 443, { client });
      assert.equal(status, 'ok');
      stream.end('data');
      const { bytes } = await readAll(stream);
      assert.deepEqual(bytes, Buffer.concat([encodeProxyV2(client, LOCAL), Buffer.from('data')]));
    });
  }

  it('are refused where no ingress entry has the port, or does not list the client', async () => {
    for (const [port, address, expected] of [
      [8080, '203.0.113.7', 'denied'],
      [22, '198.51.100.9', 'denied'],
      [22, '::ffff:203.0.113.9', 'ok'],
      [22, '203.0.113.9', 'ok'],
    ] as const) {
      const client = { address, port: 1 };
      const { stream, status } = await fixture.parent.openInbound(fixture.inboundPath, port, { client });
      stream.destroy();
      assert.equal(status, expected, `${address} port ${port}`);
    }
    const { refusals } = fixture.agent.report();
    assert.equal(refusals['no-ingress'], 1);
    assert.equal(refusals['source-not-allowed'], 1);
  });

  it('are refused when the workload does not listen', async () => {
    assert.equal((await fixture.parent.openInbound(fixture.inboundPath, 25)).status, 'refused');
  });

  it('are refused without proof of the key, with an even id, or with an id that lives', async () => {
    const key = Buffer.alloc(32, 1);
    assert.equal((await fixture.parent.openInbound(fixture.inboundPath, 80, { key })).status, 'unproven');
    assert.equal(
      (await fixture.parent.openInbound(fixture.inboundPath, 80, { flowId: 2 })).status,
      'malformed',
    );
    const live = await fixture.parent.openInbound(fixture.inboundPath, 80, { flowId: 77 });
    assert.equal(live.status, 'ok');
    assert.equal(
      (await fixture.parent.openInbound(fixture.inboundPath, 80, { flowId: 77 })).status,
      'malformed',
    );
    live.stream.destroy();
  });

  it('that are no inbound streams get a coded close', async () => {
    const open = { servicePort: 80, client: { address: '203.0.113.7', port: 1 }, local: LOCAL };
    const body = encodeInboundOpen(open);
    const key = fixture.parent.hellos[0]?.key ?? Buffer.alloc(32);
    const good = encodeStreamHeader('inbound', 101, body, key);
    const changed = (offset: number, value: number): Buffer => {
      const bytes = Buffer.from(good);
      bytes.writeUInt8(value, offset);
      return bytes;
    };
    const cases: [name: string, bytes: Buffer, status: string][] = [
      ['another magic', changed(0, 0), 'malformed'],
      ['another version', changed(4, 9), 'version'],
      ['an unknown kind', changed(5, 99), 'malformed'],
      ['kind tcp', encodeStreamHeader('tcp', 101, body, key), 'malformed'],
      ['a body over the limit', changed(6, 0xff), 'malformed'],
      ['a changed body', changed(good.length - 1, 0), 'unproven'],
      ['a changed id', changed(15, 103), 'unproven'],
      ['a body that is no OPEN', encodeStreamHeader('inbound', 101, Buffer.from([0, 80]), key), 'malformed'],
      [
        'a body with a tail',
        encodeStreamHeader('inbound', 101, Buffer.concat([body, body]), key),
        'malformed',
      ],
    ];
    for (const [name, bytes, status] of cases) {
      const stream = await connectStream({ kind: 'unix', path: fixture.inboundPath });
      stream.write(bytes);
      assert.equal(decodeReply(await readExactly(stream, REPLY_BYTES, 5_000)).status, status, name);
      assert.equal((await readAll(stream)).bytes.length, 0);
      stream.destroy();
    }
    assert.equal(fixture.agent.report().flows.count, 0);
  });

  it('that end early, at any byte, cost nothing', async () => {
    const key = fixture.parent.hellos[0]?.key ?? Buffer.alloc(32);
    const open = { servicePort: 80, client: { address: '203.0.113.7', port: 1 }, local: LOCAL };
    const good = encodeStreamHeader('inbound', 201, encodeInboundOpen(open), key);
    const streams: Stream[] = [];
    for (let cut = 0; cut < good.length; cut += 1) {
      const stream = await connectStream({ kind: 'unix', path: fixture.inboundPath });
      stream.on('error', () => {});
      stream.end(good.subarray(0, cut));
      stream.resume();
      streams.push(stream);
    }
    await Promise.all(streams.map((stream) => stream.closed || once(stream, 'close')));
    assert.equal(fixture.agent.report().flows.count, 0);
  });

  it('are taken a byte at a time, with data right behind', async () => {
    const key = fixture.parent.hellos[0]?.key ?? Buffer.alloc(32);
    const open = { servicePort: 80, client: { address: '203.0.113.7', port: 1 }, local: LOCAL };
    const bytes = Buffer.concat([
      encodeStreamHeader('inbound', 301, encodeInboundOpen(open), key),
      Buffer.from('x'),
    ]);
    const stream = await connectStream({ kind: 'unix', path: fixture.inboundPath });
    for (const byte of bytes) {
      stream.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    stream.end();
    assert.equal((await readAll(stream)).bytes.toString('latin1', REPLY_BYTES), 'x');
  });

  it('are reset at the workload when the session goes, and refused until it is back', async () => {
    const reset = new Promise<string | undefined>((resolve) => {
      workload.server.once('connection', (socket) => {
        socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code));
        socket.once('close', () => resolve(undefined));
      });
    });
    const { stream } = await fixture.parent.openInbound(fixture.inboundPath, 80);
    const key = fixture.parent.hellos[0]?.key ?? Buffer.alloc(32);
    stream.write('x');
    await once(stream, 'data');
    fixture.parent.control?.destroy();
    assert.equal(await reset, 'ECONNRESET');
    const { status } = await fixture.parent.openInbound(fixture.inboundPath, 80, { key });
    assert.ok(status === 'unregistered' || status === 'ok');
    await fixture.agent.session.ready(5_000);
    const again = await fixture.parent.openInbound(fixture.inboundPath, 80, { key });
    assert.equal(again.status, 'ok');
    again.stream.destroy();
  });
});

describe('PROXY v2', () => {
  const vectors: [client: string, local: string, hex: string][] = [
    ['203.0.113.7', '198.51.100.1', '2111000ccb007107c63364019c4001bb'],
    [
      '2001:db8::7',
      '2001:db8::1',
      '2121002420010db800000000000000000000000720010db80000000000000000000000019c4001bb',
    ],
    [
      '203.0.113.7',
      '2001:db8::1',
      '2121002400000000000000000000ffffcb00710720010db80000000000000000000000019c4001bb',
    ],
    ['::ffff:203.0.113.7', '198.51.100.1', '2111000ccb007107c63364019c4001bb'],
  ];
  for (const [client, local, hex] of vectors) {
    it(`from ${client} to ${local}`, () => {
      const bytes = encodeProxyV2({ address: client, port: 40_000 }, { address: local, port: 443 });
      assert.equal(bytes.toString('hex'), `0d0a0d0a000d0a515549540a${hex}`);
    });
  }
});
