import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { connectTcp, type Fixture, listenTcp, readAll, startFixture } from './agent-fixture.ts';
import { socksConnect, socksRequest } from './socks-client.ts';

describe('the agent behind an honest parent', () => {
  let fixture: Fixture;
  let echo: Awaited<ReturnType<typeof listenTcp>>;

  before(async () => {
    echo = await listenTcp((socket) => socket.pipe(socket));
    fixture = await startFixture({
      policy: 'egress: {allow: [{ip: [192.0.2.7, "2001:db8::7"], ports: [80, 81]}], deny: [{ip: 192.0.2.9}]}',
    });
    fixture.parent.route('192.0.2.7', 80, echo.server);
    fixture.parent.route('2001:db8::7', 80, echo.server);
  });
  after(async () => {
    await fixture.close();
    echo.close();
  });

  for (const host of ['192.0.2.7', '2001:db8::7', '::ffff:192.0.2.7']) {
    it(`carries bytes both ways to ${host} and closes both directions`, async () => {
      const { socket, reply } = await socksConnect(fixture.socksPort, host, 80);
      assert.equal(reply, 0);
      socket.end('over and out');
      const { bytes, error } = await readAll(socket);
      assert.equal(error, undefined);
      assert.equal(bytes.toString(), 'over and out');
      const open = fixture.parent.opens.at(-1);
      assert.equal(open?.proven, true);
      assert.equal(Number(open?.flowId) % 2, 0);
    });
  }

  it('takes a whole handshake and the first data in one piece, or a byte at a time', async () => {
    const request = Buffer.concat([socksRequest('192.0.2.7', 80), Buffer.from('early')]);
    for (const pieces of [[request], [...request].map((byte) => Buffer.from([byte]))]) {
      const socket = await connectTcp(fixture.socksPort);
      for (const piece of pieces) {
        socket.write(piece);
        await new Promise((resolve) => setImmediate(resolve));
      }
      socket.end();
      const { bytes } = await readAll(socket);
      assert.equal(bytes.toString('latin1', 12), 'early');
    }
  });

  it('refuses what no rule names, without a word to the parent', async () => {
    const count = fixture.parent.opens.length;
    for (const [host, port] of [
      ['192.0.2.8', 80],
      ['192.0.2.7', 82],
      ['127.0.0.1', 80],
      ['off-the-list.example', 80],
      ['2852039166', 80],
      ['0x7f.1', 80],
    ] as const) {
      const { socket, reply } = await socksConnect(fixture.socksPort, host, port);
      assert.equal(reply, 2, host);
      await readAll(socket);
    }
    assert.equal(fixture.parent.opens.length, count);
    assert.equal(fixture.agent.report().refusals['numeric-spelling'], 2);
  });

  it('answers 5 when the destination refuses, and 7 to BIND', async () => {
    const { socket, reply } = await socksConnect(fixture.socksPort, '192.0.2.7', 81);
    assert.equal(reply, 5);
    socket.destroy();
    const client = await connectTcp(fixture.socksPort);
    client.write(socksRequest('192.0.2.7', 80, 2));
    const { bytes } = await readAll(client);
    assert.equal(bytes[3], 7);
    client.destroy();
  });

  it('tells the parent of a reset by the application, once', async () => {
    const { socket } = await socksConnect(fixture.socksPort, '192.0.2.7', 80);
    socket.write('x');
    await once(socket, 'data');
    const count = fixture.parent.frames.length;
    socket.resetAndDestroy();
    while (fixture.agent.report().flows.count > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const { flowId } = fixture.parent.opens.at(-1) ?? {};
    assert.deepEqual(fixture.parent.frames.slice(count), [{ type: 'reset', flowId }]);
  });

  it('counts flows and has none left', async () => {
    const { totals, flows, session } = fixture.agent.report();
    assert.equal(session.phase, 'up');
    assert.ok(totals.opened >= 5);
    assert.ok(totals.refused >= 6);
    assert.equal(flows.count, 0);
  });
});
