import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { Audit } from '../../guest/audit.ts';
import { FlowTable } from '../../guest/flow/flow-table.ts';
import { Gate } from '../../guest/flow/gate.ts';
import { FlowOpener } from '../../guest/flow/opener.ts';
import { InboundServer } from '../../guest/inbound/server.ts';
import { createSocksServer } from '../../guest/proxy/socks5-server.ts';
import { SessionClient, type SessionState } from '../../guest/session/client.ts';
import { createLogger } from '../../shared/log.ts';
import { compilePolicy } from '../../shared/policy/compile.ts';
import { parsePolicy } from '../../shared/policy/policy.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import { connectTcp, readAll } from './agent-fixture.ts';
import { FakeParent, scratch } from './fake-parent.ts';

const SHORT_MS = 60;
const LABELS = { via: 'socks5', protocol: 'tcp', port: 80, rule: 'r' } as const;

describe('a peer that says nothing meets a deadline', () => {
  let folder: string;
  let remove: () => Promise<void>;
  let parent: FakeParent;
  let session: SessionClient;
  let table: FlowTable;
  let opener: FlowOpener;
  let states: SessionState[];
  const audit = new Audit(createLogger('test', 'json', 'silent'));

  before(async () => {
    ({ folder, remove } = await scratch());
  });
  after(() => remove());

  beforeEach(async () => {
    parent = new FakeParent(folder);
    await parent.listen();
    states = [];
    table = new FlowTable(4);
    session = new SessionClient({
      parent: { kind: 'unix', path: parent.path },
      key: randomBytes(32),
      capabilities: 1,
      agent: 'test',
      welcomeTimeoutMs: SHORT_MS,
      onState: (state) => states.push(state),
      onLost: () => table.abortAll(),
      onReset: (flowId) => table.reset(flowId),
    });
    opener = new FlowOpener({
      parent: { kind: 'unix', path: parent.path },
      session,
      table,
      sessionWaitMs: SHORT_MS,
      replyTimeoutMs: SHORT_MS,
      onOpen: () => {},
      onDone: () => {},
    });
  });
  afterEach(async () => {
    await session.close();
    await parent.close();
  });

  it('HELLO without an answer: ERR_WIRE_TIMEOUT, and another try', async () => {
    parent.onHello = () => {};
    session.start();
    while (parent.hellos.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    const failed = states.find((state) => state.phase === 'waiting');
    assert.equal(failed?.phase === 'waiting' && failed.code, 'ERR_WIRE_TIMEOUT');
  });

  it('half a WELCOME: the same', async () => {
    parent.onHello = (stream) => stream.write(Buffer.from([1, 0, 0, 12, 1]));
    session.start();
    while (!states.some((state) => state.phase === 'waiting'))
      await new Promise((resolve) => setTimeout(resolve, 5));
    const failed = states.find((state) => state.phase === 'waiting');
    assert.equal(failed?.phase === 'waiting' && failed.code, 'ERR_WIRE_TIMEOUT');
  });

  it('no session: a flow fails when its wait is over', async () => {
    parent.onHello = () => {};
    session.start();
    await assert.rejects(opener.open(['192.0.2.7'], LABELS), { code: 'ERR_SESSION_LOST' });
  });

  it('OPEN without an answer: ERR_WIRE_TIMEOUT, and the flow is gone', async () => {
    parent.onOpen = () => {};
    session.start();
    await session.ready(5_000);
    await assert.rejects(opener.open(['192.0.2.7'], LABELS), { code: 'ERR_WIRE_TIMEOUT' });
    await drained();
  });

  it('an application that gives up: ERR_TRANSPORT_ABORTED, and the parent hears a RESET', async () => {
    parent.onOpen = () => {};
    session.start();
    await session.ready(5_000);
    const gone = new AbortController();
    const opening = opener.open(['192.0.2.7'], LABELS, gone.signal);
    while (parent.opens.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    gone.abort();
    await assert.rejects(opening, { code: 'ERR_TRANSPORT_ABORTED' });
    while (parent.frames.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(parent.frames[0], { type: 'reset', flowId: parent.opens[0]?.flowId });
    await drained();
  });

  it('more flows than the limit: ERR_FLOW_LIMIT at once', async () => {
    parent.onOpen = () => {};
    session.start();
    await session.ready(5_000);
    const results = await Promise.allSettled(
      Array.from({ length: 6 }, () => opener.open(['192.0.2.7'], LABELS)),
    );
    const codes = results.map((result) => result.status === 'rejected' && result.reason.code);
    assert.equal(codes.filter((code) => code === 'ERR_FLOW_LIMIT').length, 2);
    await drained();
  });

  it('an inbound stream without a header, and one without its body: closed', async () => {
    const listen = { kind: 'unix', path: join(folder, 'inbound.sock') } as const;
    const policy = compilePolicy(
      parsePolicy('{version: 1, ingress: [{port: 80, to: "127.0.0.1:9"}]}', 'test'),
    );
    const options = { listen, policy, session, table, audit, headerTimeoutMs: SHORT_MS, onDone: () => {} };
    const listener = await new InboundServer(options).listen();
    for (const bytes of [
      Buffer.alloc(0),
      Buffer.from('PSTN'),
      Buffer.from(`5053544e01030010${'00'.repeat(24)}`, 'hex'),
    ]) {
      const stream = await connectStream(listen);
      stream.write(bytes);
      assert.equal((await readAll(stream)).bytes.length, 0);
      stream.destroy();
    }
    await listener.close();
  });

  it('a SOCKS client that never finishes: closed', async () => {
    const policy = compilePolicy(parsePolicy('{version: 1}', 'test'));
    const gate = new Gate({ policy, resolver: undefined, opener, audit });
    const { server } = createSocksServer({ gate, audit, handshakeTimeoutMs: SHORT_MS });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    for (const bytes of [Buffer.alloc(0), Buffer.from([5, 1]), Buffer.from([5, 1, 0, 5, 1, 0, 3, 200, 97])]) {
      const socket = await connectTcp(typeof address === 'object' && address !== null ? address.port : 0);
      socket.write(bytes);
      assert.ok((await readAll(socket)).bytes.length <= 2);
      socket.destroy();
    }
    server.close();
  });

  async function drained(): Promise<void> {
    assert.equal(await table.drained(5_000), 0);
  }
});
