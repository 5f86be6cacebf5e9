import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { closed, connect, readAll, TestAgent } from './agent.ts';
import { LOOPBACK, portOf, startParent, tcpServer, until, usualGuest } from './setup.ts';

/** Writes a line and reads the echo of it. */
async function echoes(stream: import('node:net').Socket, line: string): Promise<void> {
  stream.write(line);
  const [piece] = await once(stream, 'data');
  assert.equal(String(piece), line);
}

test('existing flows go on while guards, quotas and forwards change', async (t) => {
  const { parent, folder, tunnel, config } = await startParent(t, { web: {}, old: {} });
  const port = await tcpServer(t, (client) => client.pipe(client));
  const web = await TestAgent.register(tunnel('web'));
  const old = await TestAgent.register(tunnel('old'));
  const kept = await web.open(port);
  const ended = await old.open(port);
  await parent.reload(
    config({
      guests: {
        web: usualGuest(folder, 'web', {
          egress: { allow: [] },
          agent: 'unix:/tmp/never',
          forwards: [{ listen: '127.0.0.1:0', to: 80 }],
        }),
        fresh: usualGuest(folder, 'fresh', { quotas: { flows: 1 } }),
      },
    }),
  );
  await echoes(kept.stream, 'still here');
  assert.equal((await web.open(port)).reply.status, 'denied');
  await closed(ended.stream);
  await closed(old.control);
  await assert.rejects(connect(tunnel('old')));
  const fresh = await TestAgent.register(tunnel('fresh'));
  assert.equal((await fresh.open(port)).reply.status, 'ok');
  assert.equal((await fresh.open(port)).reply.status, 'limit');
  const metrics = await parent.metrics.registry.metrics();
  assert.match(metrics, /forwards_listening\{guest="web"\} 1/);
  assert.equal(metrics.includes('guest="old"'), false);
  await parent.reload(
    config({
      guests: {
        web: usualGuest(folder, 'web'),
        fresh: usualGuest(folder, 'fresh', { quotas: { flows: 2 } }),
      },
    }),
  );
  assert.equal((await fresh.open(port)).reply.status, 'ok');
  assert.equal((await web.open(port)).reply.status, 'ok');
  await echoes(kept.stream, 'and still');
});

test('a reload that cannot bind everything changes nothing', async (t) => {
  const started = await startParent(t, {
    web: { agent: 'unix:/tmp/never', forwards: [{ listen: '127.0.0.1:0', to: 80 }] },
  });
  const { parent, folder, tunnel, config } = started;
  const busy = createServer().listen(0, '127.0.0.1');
  await once(busy, 'listening');
  t.after(() => busy.close());
  const { port: busyPort } = busy.address() as import('node:net').AddressInfo;
  const port = await tcpServer(t, (client) => client.end('hello'));
  const agent = await TestAgent.register(tunnel('web'));
  const before = portOf(started, 'guests.web.forwards[0]');
  const changed = config({
    guests: {
      web: usualGuest(folder, 'web', {
        egress: { allow: [] },
        agent: 'unix:/tmp/never',
        forwards: [{ listen: `127.0.0.1:${busyPort}`, to: 80 }],
      }),
      fresh: usualGuest(folder, 'fresh'),
    },
  });
  await assert.rejects(parent.reload(changed), {
    code: 'ERR_LISTEN_FAILED',
    message: /guests\.web\.forwards\[0\]/,
  });
  assert.equal(portOf(started, 'guests.web.forwards[0]'), before);
  assert.equal(parent.guest('fresh'), undefined);
  await assert.rejects(connect(tunnel('fresh')));
  assert.equal((await readAll((await agent.open(port)).stream)).toString(), 'hello');
  await assert.rejects(parent.reload(config({ state: '/elsewhere' })), {
    code: 'ERR_CONFIG_INVALID',
    message: /^state: /,
  });
});

test('a forward that moves to another guest keeps its port, and one that goes gives it back', async (t) => {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as import('node:net').AddressInfo;
  probe.close();
  const forward = { agent: 'unix:/tmp/never', forwards: [{ listen: `127.0.0.1:${port}`, to: 80 }] };
  const started = await startParent(t, { web: forward, other: {} });
  const { parent, folder, config } = started;
  const guests = (web: object, other: object) =>
    config({
      guests: {
        web: usualGuest(folder, 'web', { ...web }),
        other: usualGuest(folder, 'other', { ...other }),
      },
    });
  await parent.reload(guests({}, forward));
  assert.equal(portOf(started, 'guests.other.forwards[0]'), port);
  await parent.reload(guests({}, {}));
  const again = createServer().listen(port, '127.0.0.1');
  await once(again, 'listening');
  again.close();
});

test('a guest that becomes known by something else is another guest', async (t) => {
  const { parent, folder, tunnel, config } = await startParent(t);
  const agent = await TestAgent.register(tunnel('web'));
  await parent.reload(config({ guests: { web: { listen: `unix:${folder}/moved`, egress: LOOPBACK } } }));
  await closed(agent.control);
  await TestAgent.register(tunnel('moved'));
  assert.equal(parent.guest('web')?.session?.live, true);
  // What the socket's holder registered is remembered under the socket, whatever the guest is called.
  await parent.reload(config({ guests: { renamed: usualGuest(folder, 'web') } }));
  await assert.rejects(TestAgent.register(tunnel('web')));
  await TestAgent.register(tunnel('web'), agent.key);
});

test('a drain ends flows that are left at its deadline with a reset', async (t) => {
  const { parent, tunnel, lines } = await startParent(t);
  const errors: string[] = [];
  const port = await tcpServer(t, (client) => {
    client.resume().on('error', (error: NodeJS.ErrnoException) => errors.push(error.code ?? '?'));
  });
  const agent = await TestAgent.register(tunnel('web'));
  await agent.open(port);
  const drained = parent.drain(200);
  await agent.frame('goaway');
  await assert.rejects(connect(tunnel('web')));
  await drained;
  await until(() => errors.length === 1, 'the destination sees it');
  assert.deepEqual(errors, ['ECONNRESET']);
  assert.deepEqual(lines.find(({ msg }) => msg === 'drained')?.['resetCount'], 1);
});
