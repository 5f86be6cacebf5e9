import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import type { Stream } from '../../shared/transport/transport.ts';
import { encodeFrame } from '../../shared/wire/control.ts';
import { encodeReply, type ReplyStatus } from '../../shared/wire/reply.ts';
import { connectTcp, listenTcp, readAll, startFixture } from './agent-fixture.ts';
import type { FakeParent, SeenOpen } from './fake-parent.ts';
import { socksConnect } from './socks-client.ts';

const POLICY = 'egress: {allow: [{ip: 192.0.2.7, ports: 80}]}';

describe('a parent that answers an OPEN wrongly', () => {
  const lies: [name: string, answer: (stream: Stream, open: SeenOpen) => void, socksReply: number][] = [
    ['an unknown status', (stream) => stream.write(Buffer.from([0x52, 99, 0, 0])), 1],
    ['data before the status', (stream) => stream.write('HTTP/1.1 200 OK\r\n\r\n'), 1],
    ['a reserved byte', (stream) => stream.write(Buffer.from([0x52, 0, 0, 7])), 1],
    ['an address that was not offered', (stream) => stream.write(encodeReply('ok', 3)), 1],
    ['half a status and an end', (stream) => stream.end(Buffer.from([0x52, 0])), 1],
    ['nothing and an end', (stream) => stream.end(), 1],
    ['nothing and a close', (stream) => stream.destroy(), 1],
    ['a control frame', (stream) => stream.write(encodeFrame({ type: 'goaway', deadlineMs: 1 })), 1],
  ];
  for (const [name, answer, socksReply] of lies) {
    it(`${name}: the application gets an error`, async () => {
      const fixture = await startFixture({ policy: POLICY });
      fixture.parent.onOpen = answer;
      const { socket, reply } = await socksConnect(fixture.socksPort, '192.0.2.7', 80);
      assert.equal(reply, socksReply);
      await readAll(socket);
      assert.equal(fixture.agent.report().flows.count, 0);
      await fixture.close();
    });
  }

  const statuses: [ReplyStatus, number][] = [
    ['denied', 2],
    ['refused', 5],
    ['unreachable', 4],
    ['timeout', 6],
    ['limit', 1],
    ['version', 1],
    ['malformed', 1],
    ['unregistered', 1],
    ['unproven', 1],
    ['taken', 1],
    ['unknownGuest', 1],
  ];
  it('every refusal becomes a reply of RFC 1928', async () => {
    const fixture = await startFixture({ policy: POLICY });
    for (const [status, expected] of statuses) {
      fixture.parent.onOpen = (stream) => fixture.parent.refuse(stream, status);
      const { socket, reply } = await socksConnect(fixture.socksPort, '192.0.2.7', 80);
      assert.equal(reply, expected, status);
      socket.destroy();
    }
    await fixture.close();
  });
});

describe('a parent whose control stream fails', () => {
  const failures: [name: string, fail: (parent: FakeParent) => void][] = [
    ['closes it', (parent) => parent.control?.destroy()],
    ['ends it', (parent) => parent.control?.end()],
    ['sends garbage', (parent) => parent.control?.write('GET / HTTP/1.1\r\n\r\n'.repeat(100))],
    ['announces a huge frame', (parent) => parent.control?.write(Buffer.from([2, 0, 0xff, 0xff]))],
    ['sends a second WELCOME', (parent) => parent.control?.write(welcome())],
    ['sends a ping of 3 bytes', (parent) => parent.control?.write(Buffer.from([2, 0, 0, 3, 0, 0, 0]))],
  ];
  for (const [name, fail] of failures) {
    it(`${name}: live flows are reset, pending ones fail, a new session comes up`, async () => {
      const fixture = await startFixture({ policy: POLICY });
      const echo = await listenTcp((socket) => socket.pipe(socket));
      fixture.parent.route('192.0.2.7', 80, echo.server);
      const live = await socksConnect(fixture.socksPort, '192.0.2.7', 80);
      assert.equal(live.reply, 0);
      fixture.parent.onOpen = () => {};
      const pending = socksConnect(fixture.socksPort, '192.0.2.7', 80);
      while (fixture.parent.opens.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
      const ended = readAll(live.socket);
      fail(fixture.parent);
      assert.equal((await ended).error?.code, 'ECONNRESET');
      assert.equal((await pending).reply, 3);
      fixture.parent.onOpen = undefined;
      const again = await socksConnect(fixture.socksPort, '192.0.2.7', 80);
      assert.equal(again.reply, 0);
      assert.equal(fixture.parent.hellos.length, 2);
      assert.deepEqual(fixture.parent.hellos[0]?.key, fixture.parent.hellos[1]?.key);
      again.socket.destroy();
      await fixture.close();
      echo.close();
    });
  }

  it('falls silent: the keep-alive ends the session', async () => {
    const fixture = await startFixture({
      policy: POLICY,
      prepare: (parent) => {
        parent.onHello = (stream) => {
          stream.write(encodeFrame({ type: 'welcome', version: 1, capabilities: 1, keepAliveMs: 1 }));
          stream.resume();
        };
      },
    });
    await until(() => fixture.parent.hellos.length > 1);
    await fixture.close();
  });

  it('resets a flow: the application sees the reset, others live on', async () => {
    const fixture = await startFixture({ policy: POLICY });
    const echo = await listenTcp((socket) => socket.pipe(socket));
    fixture.parent.route('192.0.2.7', 80, echo.server);
    const first = await socksConnect(fixture.socksPort, '192.0.2.7', 80);
    const second = await socksConnect(fixture.socksPort, '192.0.2.7', 80);
    const ended = readAll(first.socket);
    fixture.parent.channel?.send({ type: 'reset', flowId: 999_998 });
    fixture.parent.channel?.send({ type: 'reset', flowId: fixture.parent.opens[0]?.flowId ?? 0 });
    assert.equal((await ended).error?.code, 'ECONNRESET');
    second.socket.end('still here');
    assert.equal((await readAll(second.socket)).bytes.toString(), 'still here');
    await fixture.close();
    echo.close();
  });

  it('closes it amid an HTTP answer: the client sees a reset, not an end', async () => {
    const fixture = await startFixture({ policy: POLICY });
    const origin = await listenTcp((socket) => socket.write('HTTP/1.0 200 OK\r\n\r\nsome of it'));
    fixture.parent.route('192.0.2.7', 80, origin.server);
    const socket = await connectTcp(fixture.httpPort, '::1');
    socket.write('GET http://192.0.2.7/ HTTP/1.0\r\n\r\n');
    const ended = readAll(socket);
    await until(() => socket.bytesRead > 0);
    fixture.parent.control?.destroy();
    const { bytes, error } = await ended;
    assert.match(bytes.toString(), /some of it$/);
    assert.equal(error?.code, 'ECONNRESET');
    await fixture.close();
    origin.close();
  });

  it('drains: new flows are refused, live ones go on, and the agent comes back', async () => {
    const fixture = await startFixture({ policy: POLICY });
    const echo = await listenTcp((socket) => socket.pipe(socket));
    fixture.parent.route('192.0.2.7', 80, echo.server);
    const live = await socksConnect(fixture.socksPort, '192.0.2.7', 80);
    fixture.parent.channel?.send({ type: 'goaway', deadlineMs: 60_000 });
    await until(() => fixture.agent.session.state.phase === 'draining');
    assert.equal((await socksConnect(fixture.socksPort, '192.0.2.7', 80)).reply, 3);
    live.socket.write('on');
    const [piece] = await once(live.socket, 'data');
    assert.equal(String(piece), 'on');
    live.socket.end();
    await once(live.socket, 'close');
    fixture.parent.control?.destroy();
    assert.equal((await socksConnect(fixture.socksPort, '192.0.2.7', 80)).reply, 0);
    await fixture.close();
    echo.close();
  });
});

describe('a parent that answers HELLO wrongly', () => {
  const lies: [name: string, answer: (stream: Stream) => void, code: string][] = [
    ['says it is taken', (stream) => stream.end(encodeReply('taken')), 'ERR_SESSION_TAKEN'],
    [
      'does not know the guest',
      (stream) => stream.end(encodeReply('unknownGuest')),
      'ERR_SESSION_UNKNOWN_GUEST',
    ],
    ['speaks another version', (stream) => stream.end(encodeReply('version')), 'ERR_WIRE_VERSION'],
    ['chooses version 9', (stream) => stream.write(welcome(9)), 'ERR_WIRE_VERSION'],
    ['says ok', (stream) => stream.end(encodeReply('ok')), 'ERR_WIRE_MALFORMED'],
    [
      'sends a ping first',
      (stream) => stream.write(encodeFrame({ type: 'ping', token: 1 })),
      'ERR_WIRE_MALFORMED',
    ],
    ['sends garbage', (stream) => stream.write('SSH-2.0-OpenSSH_9.9\r\n'), 'ERR_WIRE_MALFORMED'],
    ['closes', (stream) => stream.destroy(), 'ERR_TRANSPORT_CLOSED'],
  ];
  for (const [name, answer, code] of lies) {
    it(`${name}: ${code}, nothing gets through, and it is tried again`, async () => {
      const fixture = await startFixture({
        policy: POLICY,
        waitForSession: false,
        prepare: (parent) => {
          parent.onHello = answer;
        },
      });
      await until(() => fixture.agent.session.state.phase === 'waiting');
      const { state } = fixture.agent.session;
      assert.equal(state.phase === 'waiting' && state.code, code);
      fixture.parent.onHello = undefined;
      await fixture.agent.session.ready(10_000);
      await fixture.close();
    });
  }

  it('never answers: the agent gives up waiting, and stops at once when told to', async () => {
    const fixture = await startFixture({
      policy: POLICY,
      waitForSession: false,
      prepare: (parent) => {
        parent.onHello = () => {};
      },
    });
    await until(() => fixture.parent.hellos.length === 1);
    assert.equal((await socksConnect(fixture.socksPort, '192.0.2.7', 80)).reply, 3);
    await fixture.close();
  });
});

function welcome(version = 1): Buffer {
  return encodeFrame({ type: 'welcome', version, capabilities: 1, keepAliveMs: 1000 });
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}
