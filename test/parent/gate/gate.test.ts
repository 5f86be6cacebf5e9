import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { UNPROVEN_MAX } from '../../../parent/gate/gate.ts';
import type { Stream } from '../../../shared/transport/transport.ts';
import { encodeStreamHeader, type StreamKind } from '../../../shared/wire/header.ts';
import { encodeTcpOpen } from '../../../shared/wire/open.ts';
import { decodeReply } from '../../../shared/wire/reply.ts';
import { closed, connect, helloBytes, readAll, readReply, TestAgent } from '../agent.ts';
import { type Started, startParent, tcpServer, until } from '../setup.ts';

const KEY = randomBytes(32);
const TARGET = { port: 9, addresses: ['127.0.0.1'] };

/** Sends bytes, ends, and says what the parent answered: the status, or that it closed without a word. */
async function answerTo(started: Started, bytes: Buffer, guest = 'web'): Promise<string> {
  const stream = await connect(started.tunnel(guest));
  stream.end(bytes);
  const answer = await readAll(stream);
  stream.destroy();
  return answer.length === 0 ? 'closed' : decodeReply(answer).status;
}

function refusals(started: Started): Promise<Record<string, number>> {
  return started.parent.metrics.registry
    .getSingleMetricAsString('postern_parent_streams_refused_total')
    .then((text) =>
      Object.fromEntries(
        [...text.matchAll(/reason="([^"]+)"\} (\d+)/g)].map(([, reason, count]) => [reason, Number(count)]),
      ),
    );
}

test('turns away streams without a session, without proof, and of another guest', async (t) => {
  const started = await startParent(t, { web: {}, other: {} });
  const forged = encodeStreamHeader('tcp', 2, encodeTcpOpen(TARGET), KEY);
  assert.equal(await answerTo(started, forged), 'unregistered');
  const agent = await TestAgent.register(started.tunnel('web'));
  const other = await TestAgent.register(started.tunnel('other'));
  assert.equal(await answerTo(started, forged), 'unproven');
  // A proof holds for its own guest alone.
  assert.equal(await answerTo(started, other.openBytes(TARGET)), 'unproven');
  // And for its own body alone.
  const bytes = agent.openBytes(TARGET);
  bytes.writeUInt16BE(10, 32);
  assert.equal(await answerTo(started, bytes), 'unproven');
  agent.close();
  await until(() => started.parent.guest('web')?.session === undefined, 'the session is gone');
  assert.equal(await answerTo(started, agent.openBytes(TARGET)), 'unregistered');
  assert.deepEqual(await refusals(started), { unregistered: 2, unproven: 3 });
});

test('answers every kind of nonsense with its code', async (t) => {
  const started = await startParent(t);
  const agent = await TestAgent.register(started.tunnel('web'));
  const changed = (offset: number, value: number): Buffer => {
    const bytes = agent.openBytes(TARGET);
    bytes.writeUInt8(value, offset);
    return bytes;
  };
  const proven = (kind: StreamKind, flowId: number, body: Buffer) =>
    encodeStreamHeader(kind, flowId, body, agent.key);
  assert.equal(await answerTo(started, randomBytes(4096)), 'malformed');
  assert.equal(
    await answerTo(started, Buffer.from('GET / HTTP/1.1\r\nHost: parent.example\r\n\r\n')),
    'malformed',
  );
  assert.equal(await answerTo(started, Buffer.alloc(0)), 'malformed');
  assert.equal(await answerTo(started, changed(4, 2)), 'version');
  assert.equal(await answerTo(started, changed(5, 99)), 'malformed');
  assert.equal(await answerTo(started, changed(6, 255)), 'malformed');
  assert.equal(await answerTo(started, proven('tcp', 2, Buffer.alloc(0))), 'malformed');
  assert.equal(await answerTo(started, proven('tcp', 2, Buffer.alloc(1024, 255))), 'malformed');
  assert.equal(await answerTo(started, proven('inbound', 2, encodeTcpOpen(TARGET))), 'malformed');
  assert.equal(await answerTo(started, proven('tcp', 3, encodeTcpOpen(TARGET))), 'malformed');
  assert.equal(agent.control.destroyed, false);
  assert.equal(started.parent.guest('web')?.usage.flows, 0);
});

test('an OPEN cut short at any byte costs one answer and nothing else', async (t) => {
  const started = await startParent(t);
  const agent = await TestAgent.register(started.tunnel('web'));
  const bytes = agent.openBytes({ port: 9, addresses: ['127.0.0.1', '::1'] });
  for (let length = 0; length < bytes.length; length += 1) {
    assert.equal(await answerTo(started, bytes.subarray(0, length)), 'malformed', `${length} bytes`);
  }
  assert.equal(await answerTo(started, bytes), 'refused');
  const guest = started.parent.guest('web');
  assert.deepEqual([guest?.unproven.size, guest?.usage.flows, guest?.usage.dials], [0, 0, 0]);
});

test('an OPEN that comes a byte at a time is as good as another', async (t) => {
  const started = await startParent(t);
  const port = await tcpServer(t, (client) => client.end('here'));
  const agent = await TestAgent.register(started.tunnel('web'));
  const stream = await connect(started.tunnel('web'));
  for (const byte of agent.openBytes({ port, addresses: ['127.0.0.1'] })) {
    stream.write(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal((await readReply(stream)).status, 'ok');
  assert.equal((await readAll(stream)).toString(), 'here');
});

test('a replayed OPEN is refused while its flow lives', async (t) => {
  const started = await startParent(t);
  const port = await tcpServer(t, () => {});
  const agent = await TestAgent.register(started.tunnel('web'));
  const bytes = agent.openBytes({ port, addresses: ['127.0.0.1'] });
  const first = await connect(started.tunnel('web'));
  first.write(bytes);
  assert.equal((await readReply(first)).status, 'ok');
  assert.equal(await answerTo(started, bytes), 'malformed');
  assert.equal(first.destroyed, false);
  assert.equal(started.parent.guest('web')?.usage.flows, 1);
});

test('silent streams are bounded, are closed in time, and keep nobody out', async (t) => {
  const started = await startParent(t);
  const agent = await TestAgent.register(started.tunnel('web'));
  const guest = started.parent.guest('web');
  const extra = 100;
  const silent: Stream[] = [];
  for (let index = 0; index < UNPROVEN_MAX + extra; index += 1)
    silent.push(await connect(started.tunnel('web')));
  // The oldest had to make room, and were told.
  for (const stream of silent.slice(0, extra)) assert.equal((await readReply(stream)).status, 'limit');
  assert.equal(guest?.unproven.size, UNPROVEN_MAX);
  assert.deepEqual(await refusals(started), { crowded: extra });
  assert.equal((await agent.open(9)).reply.status, 'refused');
  await Promise.all(silent.map((stream) => closed(stream)));
  assert.equal(guest?.unproven.size, 0);
  const audited = started.lines.filter(({ msg }) => msg === 'stream refused');
  assert.ok(audited.length <= 4, `${audited.length} lines for ${silent.length} streams`);
  for (const stream of silent) stream.destroy();
});

test('one session a guest: a second is refused while one is live, and later to another key', async (t) => {
  const started = await startParent(t);
  const agent = await TestAgent.register(started.tunnel('web'), KEY);
  assert.equal(await answerTo(started, helloBytes(KEY)), 'taken');
  assert.equal(await answerTo(started, helloBytes(randomBytes(32))), 'taken');
  agent.close();
  await until(() => started.parent.guest('web')?.session === undefined, 'the session is gone');
  assert.equal(await answerTo(started, helloBytes(randomBytes(32))), 'taken');
  const again = await TestAgent.register(started.tunnel('web'), KEY);
  assert.equal((await again.open(9)).reply.status, 'refused');
  assert.equal(await started.parent.release('web'), true);
  await closed(again.control);
  await TestAgent.register(started.tunnel('web'));
  assert.deepEqual(await refusals(started), { taken: 2 });
  assert.equal(started.lines.filter(({ event }) => event === 'session.held').length, 1);
});

test('a HELLO that lies about its key or its version is answered so', async (t) => {
  const started = await startParent(t);
  const bytes = helloBytes(KEY);
  bytes.writeUInt8(bytes.readUInt8(50) ^ 1, 50);
  assert.equal(await answerTo(started, bytes), 'unproven');
  assert.equal(await answerTo(started, helloBytes(KEY, { minVersion: 2, maxVersion: 9 })), 'version');
  assert.equal(await answerTo(started, helloBytes(KEY).subarray(0, 60)), 'malformed');
  assert.equal(started.parent.guest('web')?.slot.state.kind, 'vacant');
});

test('a guest whose remembered key cannot be read is refused, and the others are not', async (t) => {
  const started = await startParent(t, { web: {}, other: {} });
  const agent = await TestAgent.register(started.tunnel('web'), KEY);
  agent.close();
  await until(() => started.parent.guest('web')?.session === undefined, 'the session is gone');
  await started.parent.close();
  const state = join(started.folder, 'state');
  const { readdir } = await import('node:fs/promises');
  for (const file of await readdir(state)) await writeFile(join(state, file), 'not json');
  const again = await started.restart();
  assert.equal(await answerTo(again, helloBytes(KEY)), 'unregistered');
  await TestAgent.register(again.tunnel('other'));
  assert.deepEqual(await refusals(again), { state: 1 });
  assert.ok(again.lines.some(({ msg }) => String(msg).includes('postern parent release web')));
  assert.equal(await again.parent.release('web'), true);
  await TestAgent.register(again.tunnel('web'), KEY);
});

test('the remembered key outlives the parent', async (t) => {
  const started = await startParent(t);
  await TestAgent.register(started.tunnel('web'), KEY);
  await started.parent.close();
  const again = await started.restart();
  assert.equal(await answerTo(again, helloBytes(randomBytes(32))), 'taken');
  await TestAgent.register(again.tunnel('web'), KEY);
});
