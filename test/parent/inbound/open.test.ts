import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { TransportAddress } from '../../../shared/transport/address.ts';
import { encodeReply } from '../../../shared/wire/reply.ts';
import { closed, type Inbound, readAll, TestAgent } from '../agent.ts';
import { portOf, type Started, startParent, until } from '../setup.ts';

interface Service {
  readonly started: Started;
  readonly agentAddress: TransportAddress;
  client(): Socket;
}

/** A parent with one forward, on a port of the kernel's choice, to service port 443 of the guest. */
async function startForward(t: TestContext, quotas: Record<string, number> = {}): Promise<Service> {
  const path = join('/tmp', `postern-agent-${process.pid}-${Math.random().toString(36).slice(2)}`);
  const forwards = [{ listen: '127.0.0.1:0', to: 443 }];
  const started = await startParent(t, { web: { agent: `unix:${path}`, forwards, quotas } });
  const client = (): Socket => {
    const port = portOf(started, 'guests.web.forwards[0]');
    const socket = connectTcp({ port, host: '127.0.0.1', allowHalfOpen: true });
    t.after(() => socket.destroy());
    return socket.on('error', () => {});
  };
  return { started, agentAddress: { kind: 'unix', path }, client };
}

/** The code of the error that ends the socket; empty when it closes without one. */
function endOf(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.resume().once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? '?'));
    socket.once('close', () => resolve(''));
  });
}

test('takes a client to the guest, tells it who that is, and logs it', async (t) => {
  const { started, agentAddress, client } = await startForward(t);
  const agent = await TestAgent.register(started.tunnel('web'));
  const seen: Inbound[] = [];
  await agent.serveInbound(t, agentAddress, (inbound) => {
    seen.push(inbound);
    inbound.stream.write(encodeReply('ok'));
    void readAll(inbound.stream).then((request) => inbound.stream.end(`served ${request}`));
  });
  const socket = client();
  await once(socket, 'connect');
  const { localPort } = socket;
  socket.end('hello');
  assert.equal((await readAll(socket)).toString(), 'served hello');
  assert.deepEqual(seen[0]?.open, {
    servicePort: 443,
    client: { address: '127.0.0.1', port: localPort },
    local: { address: '127.0.0.1', port: portOf(started, 'guests.web.forwards[0]') },
  });
  const line = started.lines.find(({ msg }) => msg === 'inbound flow');
  assert.equal(line?.['client'], `127.0.0.1 ${localPort}`);
  await until(() => started.parent.guest('web')?.usage.inbound === 0, 'the flow is counted out');
});

test('resets clients while the guest has no session, drains, refuses, lies or does not listen', async (t) => {
  const { started, agentAddress, client } = await startForward(t);
  assert.equal(await endOf(client()), 'ECONNRESET');
  const agent = await TestAgent.register(started.tunnel('web'));
  assert.equal(await endOf(client()), 'ECONNRESET');
  let answer: Buffer = encodeReply('denied');
  await agent.serveInbound(t, agentAddress, ({ stream }) => stream.end(answer));
  assert.equal(await endOf(client()), 'ECONNRESET');
  for (const lie of [Buffer.from('no reply at all'), Buffer.alloc(0), encodeReply('ok').subarray(0, 3)]) {
    answer = lie;
    assert.equal(await endOf(client()), 'ECONNRESET');
  }
  agent.send({ type: 'goaway', deadlineMs: 1000 });
  await until(() => started.lines.some(({ msg }) => msg === 'guest drains'), 'the parent heard it');
  assert.equal(await endOf(client()), 'ECONNRESET');
  const guest = started.parent.guest('web');
  assert.deepEqual([guest?.usage.inbound, guest?.usage.inboundPending, guest?.session?.flowCount], [0, 0, 0]);
  const metrics = await started.parent.metrics.registry.getSingleMetricAsString('postern_parent_opens_total');
  assert.match(metrics, /direction="inbound",outcome="no-session"\} 2/);
  assert.match(metrics, /outcome="denied"\} 1/);
  assert.match(metrics, /outcome="no-agent"\} 4/);
});

test('carries resets both ways, and ends with the session', async (t) => {
  const { started, agentAddress, client } = await startForward(t);
  const agent = await TestAgent.register(started.tunnel('web'));
  const seen: Inbound[] = [];
  await agent.serveInbound(t, agentAddress, (inbound) => {
    seen.push(inbound);
    inbound.stream.write(encodeReply('ok'));
    inbound.stream.resume();
  });
  const flows = () => started.parent.guest('web')?.flows.size;
  const first = client();
  await until(() => flows() === 1, 'a flow');
  first.resetAndDestroy();
  assert.equal((await agent.frame('reset')).flowId, seen[0]?.flowId);
  seen[0]?.stream.destroy();
  await until(() => flows() === 0, 'it is gone');
  const second = client();
  const secondEnd = endOf(second);
  await until(() => flows() === 1, 'a flow');
  agent.send({ type: 'reset', flowId: seen[1]?.flowId ?? -1 });
  assert.equal(await secondEnd, 'ECONNRESET');
  const third = client();
  const thirdEnd = endOf(third);
  await until(() => flows() === 1, 'a flow');
  agent.close();
  assert.equal(await thirdEnd, 'ECONNRESET');
});

test('bounds clients that wait for the guest, and those that are served', async (t) => {
  const { started, agentAddress, client } = await startForward(t, { inboundPending: 2, inboundFlows: 3 });
  const agent = await TestAgent.register(started.tunnel('web'));
  const held: Inbound[] = [];
  await agent.serveInbound(t, agentAddress, (inbound) => held.push(inbound));
  const [first, second] = [client(), client()];
  await until(() => held.length === 2, 'two wait');
  assert.equal(await endOf(client()), 'ECONNRESET');
  for (const { stream } of held) stream.write(encodeReply('ok'));
  await until(() => started.parent.guest('web')?.flows.size === 2, 'two are served');
  client();
  await until(() => held.length === 3, 'one more waits');
  assert.equal(await endOf(client()), 'ECONNRESET');
  first.destroy();
  second.destroy();
  // A client that goes while it waits takes its place with it, when the parent hears of it.
  agent.close();
  await until(() => started.parent.guest('web')?.usage.inbound === 0, 'nobody is left');
});

test('keeps what a client sends before the guest has answered', async (t) => {
  const { started, agentAddress, client } = await startForward(t);
  const agent = await TestAgent.register(started.tunnel('web'));
  const held: Inbound[] = [];
  await agent.serveInbound(t, agentAddress, (inbound) => held.push(inbound));
  const body = Buffer.alloc(2 * 1024 * 1024, 'x');
  const socket = client();
  socket.end(body);
  await until(() => held.length === 1, 'the client waits');
  const [{ stream }] = held as [Inbound];
  stream.write(encodeReply('ok'));
  const received = readAll(stream);
  assert.ok((await received).equals(body));
  stream.end('done');
  assert.equal((await readAll(socket)).toString(), 'done');
  await closed(stream);
});

test('a bind that fails names the port, the guest and what to do, and nothing is left listening', async (t) => {
  const { createServer } = await import('node:net');
  const busy = createServer().listen(0, '127.0.0.1');
  await once(busy, 'listening');
  t.after(() => busy.close());
  const { port } = busy.address() as import('node:net').AddressInfo;
  const forwards = [
    { listen: '127.0.0.1:0', to: 1 },
    { listen: `127.0.0.1:${port}`, to: 2 },
    { listen: '192.0.2.77:1', to: 3 },
  ];
  const before = listenerCount();
  const starting = startParent(t, { web: { agent: 'unix:/tmp/never', forwards } });
  await assert.rejects(starting, (error: Error & { code?: string }) => {
    assert.equal(error.code, 'ERR_LISTEN_FAILED');
    assert.match(
      error.message,
      /guests\.web\.forwards\[1\] \(guest web\): cannot listen on 127\.0\.0\.1:\d+: EADDRINUSE: .*ss -ltnp/,
    );
    assert.match(error.message, /forwards\[2\] \(guest web\): .*EADDRNOTAVAIL/);
    return true;
  });
  await until(() => listenerCount() === before, 'the listeners are gone');
});

function listenerCount(): number {
  const resources = process.getActiveResourcesInfo();
  return resources.filter((kind) => kind === 'TCPServerWrap' || kind === 'PipeServerWrap').length;
}
