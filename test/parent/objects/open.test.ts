import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connectRelay, type Relay } from '../../../guest/objects/client.ts';
import { PosternError } from '../../../shared/errors.ts';
import { retryingStore } from '../../../shared/objects/retry.ts';
import type { Stream } from '../../../shared/transport/transport.ts';
import { encodeStreamHeader } from '../../../shared/wire/header.ts';
import { closed, connect, readReply, TestAgent } from '../agent.ts';
import { type Started, startParent, until, usualGuest } from '../setup.ts';

const GRANT = [{ store: 'disk', prefix: 'web/' }];

/** A parent with one directory store, of which `web` has a part and `bare` nothing. */
function start(t: TestContext): Promise<Started> {
  return startParent(t, { web: { objects: GRANT }, bare: {} }, (folder) => {
    mkdirSync(join(folder, 'store'));
    return { stores: { disk: { directory: { path: join(folder, 'store') } } } };
  });
}

function withStore({ config, folder }: Started, objects: unknown = GRANT) {
  return config({
    stores: { disk: { directory: { path: join(folder, 'store') } } },
    guests: { web: usualGuest(folder, 'web', { objects }), bare: usualGuest(folder, 'bare') },
  });
}

async function openStream(agent: TestAgent, flowId = agent.takeFlowId(), body = Buffer.alloc(0)) {
  const stream = await connect(agent.address);
  stream.write(encodeStreamHeader('object', flowId, body, agent.key));
  return { stream, status: (await readReply(stream)).status };
}

function relayOf(t: TestContext, agent: TestAgent): Relay & { readonly streams: Stream[] } {
  const streams: Stream[] = [];
  const relay = connectRelay({
    async open() {
      const { stream, status } = await openStream(agent);
      if (status !== 'ok') throw new PosternError('ERR_FLOW_DENIED', status);
      streams.push(stream);
      return stream;
    },
  });
  t.after(() => relay.close());
  return { ...relay, streams };
}

test('a guest has the objects that were granted to it, and no others', async (t) => {
  const started = await start(t);
  const agent = await TestAgent.register(started.tunnel('web'));
  const { store } = relayOf(t, agent);
  assert.equal(await store.putIfAbsent('web/a', Buffer.from('first')), 'created');
  assert.equal(await store.putIfAbsent('web/a', Buffer.from('second')), 'exists');
  assert.equal(String(await store.get('web/a')), 'first');
  await assert.rejects(store.get('other/a'), { code: 'ERR_STORE_DENIED' });
  const metrics = await started.parent.metrics.registry.metrics();
  assert.match(metrics, /objects_operations_total\{guest="web",operation="put",outcome="[a-z]+"\} \d/);
  assert.match(metrics, /object_streams\{guest="web"\} 1/);
  assert.match(metrics, /object_streams\{guest="bare"\} 0/);
});

test('a guest without objects is denied, and it is written down', async (t) => {
  const started = await start(t);
  const agent = await TestAgent.register(started.tunnel('bare'));
  const { stream, status } = await openStream(agent);
  assert.equal(status, 'denied');
  await closed(stream);
  assert.ok(started.lines.some(({ event, guest }) => event === 'objects.refused' && guest === 'bare'));
});

test('an object stream has an even flow id of its own and no body', async (t) => {
  const started = await start(t);
  const agent = await TestAgent.register(started.tunnel('web'));
  assert.equal((await openStream(agent, 2)).status, 'ok');
  assert.equal((await openStream(agent, 2)).status, 'malformed');
  assert.equal((await openStream(agent, 3)).status, 'malformed');
  assert.equal((await openStream(agent, 4, Buffer.alloc(1))).status, 'malformed');
});

test('object streams end with their session', async (t) => {
  const started = await start(t);
  const agent = await TestAgent.register(started.tunnel('web'));
  const relay = relayOf(t, agent);
  await relay.store.putIfAbsent('web/a', Buffer.from('1'));
  agent.close();
  await Promise.all(relay.streams.map(closed));
  await until(() => started.parent.guest('web')?.objectStreams.size === 0, 'no stream is left');
});

test('a reload that changes the grant ends the streams; one that does not leaves them', async (t) => {
  const started = await start(t);
  const agent = await TestAgent.register(started.tunnel('web'));
  const relay = relayOf(t, agent);
  await relay.store.putIfAbsent('web/a', Buffer.from('1'));
  await started.parent.reload(withStore(started));
  await relay.store.putIfAbsent('web/b', Buffer.from('2'));
  assert.equal(relay.streams.length, 1);
  await started.parent.reload(withStore(started, [{ store: 'disk', prefix: 'moved/' }]));
  const retrying = retryingStore(relay.store);
  await assert.rejects(retrying.get('web/a'), { code: 'ERR_STORE_DENIED' });
  await retrying.putIfAbsent('moved/a', Buffer.from('3'));
  await started.parent.reload(withStore(started, []));
  await assert.rejects(retrying.get('moved/a'), { code: 'ERR_STORE_DENIED' });
});

test('a reload whose store cannot be opened changes nothing', async (t) => {
  const started = await start(t);
  const { config, folder, parent, tunnel } = started;
  const agent = await TestAgent.register(tunnel('web'));
  const relay = relayOf(t, agent);
  await relay.store.putIfAbsent('web/a', Buffer.from('1'));
  const stores = { disk: { directory: { path: join(folder, 'nowhere') } } };
  const guests = { web: usualGuest(folder, 'web', { objects: GRANT }) };
  await assert.rejects(parent.reload(config({ stores, guests })), PosternError);
  assert.equal(String(await relay.store.get('web/a')), '1');
  assert.equal(relay.streams.length, 1);
  assert.notEqual(parent.guest('bare'), undefined);
});

test('a drain lets the streams end and waits for no more than its grace', async (t) => {
  const started = await start(t);
  const agent = await TestAgent.register(started.tunnel('web'));
  const relay = relayOf(t, agent);
  await relay.store.putIfAbsent('web/a', Buffer.from('1'));
  const drained = started.parent.drain(100);
  await Promise.all(relay.streams.map(closed));
  await drained;
  assert.equal(started.parent.guest('web')?.objectStreams.size, 0);
});

test('a parent whose store cannot be opened does not start', async (t) => {
  const started = startParent(t, { web: { objects: GRANT } }, (folder) => ({
    stores: { disk: { directory: { path: join(folder, 'nowhere') } } },
  }));
  await assert.rejects(started, PosternError);
});
