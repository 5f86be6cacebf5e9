import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { closed, readAll, readReply, TestAgent } from '../agent.ts';
import { startParent, tcpServer, until } from '../setup.ts';

test('carries a flow, what was sent behind the OPEN included, with half-close both ways', async (t) => {
  const { parent, tunnel } = await startParent(t);
  const port = await tcpServer(t, (client) => {
    void readAll(client).then((request) => client.end(`answer to ${request}`));
  });
  const agent = await TestAgent.register(tunnel('web'));
  const { stream, reply } = await agent.open(port, ['127.0.0.1'], Buffer.from('early '));
  assert.deepEqual(reply, { status: 'ok', addressIndex: 0 });
  stream.end('late');
  assert.equal((await readAll(stream)).toString(), 'answer to early late');
  await closed(stream);
  await until(() => parent.guest('web')?.usage.flows === 0, 'the flow is counted out');
  assert.match(await parent.metrics.registry.metrics(), /bytes_total\{guest="web",direction="out"\} 10\n/);
});

test('keeps a large early body whole while the destination is slow to be found', async (t) => {
  const { tunnel } = await startParent(t);
  const body = randomBytes(3 * 1024 * 1024);
  const port = await tcpServer(t, (client) => {
    void readAll(client).then((request) => client.end(request));
  });
  const agent = await TestAgent.register(tunnel('web'));
  const stream = await agent.start({ port, addresses: ['127.0.0.1'] }, body);
  stream.end();
  assert.equal((await readReply(stream)).status, 'ok');
  assert.ok((await readAll(stream)).equals(body));
});

test('answers what the destination says', async (t) => {
  const { tunnel } = await startParent(t, {
    web: { egress: { allow: [{ cidr: '127.0.0.0/8', ports: '1-65535' }] } },
  });
  const port = await tcpServer(t, (client) => client.destroy());
  const agent = await TestAgent.register(tunnel('web'));
  assert.equal((await agent.open(port)).reply.status, 'ok');
  // Port 1 of loopback: nobody listens.
  assert.equal((await agent.open(1)).reply.status, 'refused');
  assert.equal((await agent.open(port, ['192.0.2.1'])).reply.status, 'denied');
  // One that the guard refuses does not hide what the others say.
  assert.equal((await agent.open(1, ['192.0.2.1', '127.0.0.2'])).reply.status, 'refused');
});

test('names the address that answered by its place in the OPEN', async (t) => {
  const { tunnel } = await startParent(t);
  const port = await tcpServer(t, (client) => client.end('hello'));
  const agent = await TestAgent.register(tunnel('web'));
  const { stream, reply } = await agent.open(port, ['192.0.2.1', '127.0.0.9', '::1', '127.0.0.1']);
  assert.deepEqual(reply, { status: 'ok', addressIndex: 3 });
  assert.equal((await readAll(stream)).toString(), 'hello');
});

test('carries a reset as a reset, both ways', async (t) => {
  const { tunnel } = await startParent(t);
  const clients: Socket[] = [];
  const port = await tcpServer(t, (client) => clients.push(client));
  const agent = await TestAgent.register(tunnel('web'));

  const toUs = await agent.start({ port, addresses: ['127.0.0.1'] }, undefined, 100);
  await readReply(toUs);
  await until(() => clients.length === 1, 'the server has its client');
  clients[0]?.resetAndDestroy();
  assert.equal((await agent.frame('reset')).flowId, 100);
  assert.equal(toUs.readableEnded, false);
  toUs.destroy();

  const fromUs = await agent.start({ port, addresses: ['127.0.0.1'] }, undefined, 102);
  await readReply(fromUs);
  await until(() => clients.length === 2, 'the server has its second client');
  const server = clients[1] as Socket;
  const failed = once(server, 'error');
  server.resume();
  agent.send({ type: 'reset', flowId: 102 });
  const [error] = await failed;
  assert.equal(error.code, 'ECONNRESET');
  await closed(fromUs);
});

test('resets every flow of a session that is lost, and no other', async (t) => {
  const { tunnel } = await startParent(t, { web: {}, other: {} });
  const ended: string[] = [];
  const port = await tcpServer(t, (client) => {
    client.once('data', (name) => {
      client.on('error', (error: NodeJS.ErrnoException) => ended.push(`${name} ${error.code}`));
    });
  });
  const [web, other] = [await TestAgent.register(tunnel('web')), await TestAgent.register(tunnel('other'))];
  const flows = await Promise.all([1, 2, 3].map(() => web.open(port, ['127.0.0.1'], Buffer.from('web'))));
  const kept = await other.open(port, ['127.0.0.1'], Buffer.from('other'));
  web.close();
  await Promise.all(flows.map(({ stream }) => closed(stream)));
  await until(() => ended.length === 3, 'the three destinations see a reset');
  assert.deepEqual(new Set(ended), new Set(['web ECONNRESET']));
  assert.equal(kept.stream.destroyed, false);
});
