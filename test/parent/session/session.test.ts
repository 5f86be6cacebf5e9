import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { STRAY_RESETS_PER_SECOND } from '../../../parent/session/session.ts';
import { CONTROL_QUEUE_MAX_BYTES } from '../../../shared/session/channel.ts';
import { encodeFrame } from '../../../shared/wire/control.ts';
import { closed, TestAgent } from '../agent.ts';
import { blackHole } from '../black-hole.ts';
import { startParent, tcpServer, until } from '../setup.ts';

/** `type u8 | 0 | length u16 | payload`, whatever they are. */
function rawFrame(type: number, length: number, payload: Buffer = Buffer.alloc(length)): Buffer {
  const fixed = Buffer.from([type, 0, length >> 8, length & 255]);
  return Buffer.concat([fixed, payload]);
}

test('skips frames of types it does not know, and RESETs of flows it does not have', async (t) => {
  const { tunnel } = await startParent(t);
  const agent = await TestAgent.register(tunnel('web'));
  agent.control.write(rawFrame(200, 0));
  agent.control.write(rawFrame(201, 1024));
  for (let flowId = 0; flowId < 1000; flowId += 1) agent.send({ type: 'reset', flowId });
  agent.send({ type: 'ping', token: 7 });
  assert.equal((await agent.frame('pong')).token, 7);
});

const FATAL: Record<string, Buffer> = {
  'an oversize frame': rawFrame(2, 1025),
  'a RESET of the wrong length': rawFrame(4, 7),
  'a WELCOME from a guest': encodeFrame({ type: 'welcome', version: 1, capabilities: 0, keepAliveMs: 1 }),
  'a flow id over 2^53': rawFrame(4, 8, Buffer.alloc(8, 255)),
  'a flood of stray RESETs': Buffer.concat(
    Array.from({ length: STRAY_RESETS_PER_SECOND * 3 }, () => encodeFrame({ type: 'reset', flowId: 4 })),
  ),
};

for (const [what, bytes] of Object.entries(FATAL)) {
  test(`${what} ends the session and its flows`, async (t) => {
    const { parent, tunnel, lines } = await startParent(t);
    const port = await tcpServer(t, () => {});
    const agent = await TestAgent.register(tunnel('web'));
    const { stream } = await agent.open(port);
    agent.control.write(bytes);
    await closed(agent.control);
    await closed(stream);
    await until(() => parent.guest('web')?.usage.flows === 0, 'its flow is counted out');
    assert.equal(lines.filter(({ msg }) => msg === 'session lost').length, 1);
    agent.close();
    await TestAgent.register(tunnel('web'), agent.key);
  });
}

test('a control stream that is never read ends the session, not the memory', async (t) => {
  const { parent, tunnel } = await startParent(t);
  const agent = await TestAgent.register(tunnel('web'));
  agent.control.pause();
  const ping = Buffer.concat(Array.from({ length: 4096 }, () => encodeFrame({ type: 'ping', token: 1 })));
  const session = parent.guest('web')?.session;
  const pump = (): void => {
    while (!agent.control.destroyed && agent.control.write(ping));
  };
  agent.control.on('drain', pump);
  pump();
  await until(() => parent.guest('web')?.session === undefined, 'the session is lost');
  assert.equal(session?.live, false);
  assert.ok(CONTROL_QUEUE_MAX_BYTES < 64 * 1024);
});

test('a RESET cancels a dial, and so does closing the stream', async (t) => {
  const { parent, tunnel } = await startParent(t, {
    web: { egress: { allow: [{ ip: '127.0.0.1', ports: '1-65535' }] } },
  });
  const usage = parent.guest('web')?.usage;
  const port = await blackHole(t);
  const agent = await TestAgent.register(tunnel('web'));
  const first = await agent.start({ port, addresses: ['127.0.0.1'] }, undefined, 10);
  await until(() => usage?.dials === 1, 'it dials');
  agent.send({ type: 'reset', flowId: 10 });
  await closed(first);
  assert.deepEqual([usage?.dials, usage?.flows], [0, 0]);
  // Half-closed is not closed: a request may be sent whole before the destination answers.
  const second = await agent.start({ port, addresses: ['127.0.0.1'] }, Buffer.alloc(1000), 12);
  second.end();
  await until(() => usage?.dials === 1, 'it dials');
  await new Promise((resolve) => setTimeout(resolve, 600));
  assert.equal(usage?.dials, 1);
  second.destroy();
  await until(() => usage?.dials === 0, 'the dial is given up');
  assert.equal(usage?.flows, 0);
});

test('says when it drains', async (t) => {
  const { parent, tunnel } = await startParent(t);
  const port = await tcpServer(t, (client) => client.pipe(client));
  const agent = await TestAgent.register(tunnel('web'));
  const { stream } = await agent.open(port);
  const drained = parent.drain(5000);
  assert.equal((await agent.frame('goaway')).deadlineMs, 5000);
  stream.write('still here');
  assert.equal(String((await once(stream, 'data'))[0]), 'still here');
  stream.end();
  await drained;
  await closed(agent.control);
});
