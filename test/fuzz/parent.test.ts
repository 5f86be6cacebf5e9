import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { encodeFrame } from '../../shared/wire/control.ts';
import {
  encodeClose,
  encodeDatagram,
  encodeUndelivered,
  UdpFrameDecoder,
} from '../../shared/wire/datagram.ts';
import { encodeStreamHeader } from '../../shared/wire/header.ts';
import { encodeTcpOpen } from '../../shared/wire/open.ts';
import { decodeReply, REPLY_BYTES } from '../../shared/wire/reply.ts';
import { closed, connect, helloBytes, readAll, TestAgent } from '../parent/agent.ts';
import { echo, LOOPBACK_UDP, TestAssociation, udpPeer } from '../parent/nat/datagrams.ts';
import { startParent, until } from '../parent/setup.ts';
import { fuzzRounds, fuzzSeed, mutate, SeededRandom } from './fuzz.ts';

test('a parent answers any stream with a code or a close, and forgets it', async (t) => {
  const seed = fuzzSeed();
  t.diagnostic(`seed ${seed}`);
  const random = new SeededRandom(seed);
  const { parent, tunnel } = await startParent(t, { web: {}, other: {} });
  const agent = await TestAgent.register(tunnel('web'));
  const other = await TestAgent.register(tunnel('other'));
  const open = (addresses: string[]) => encodeTcpOpen({ port: 1, addresses });
  const proven = (kind: 'tcp' | 'udp' | 'inbound', body: Buffer) =>
    encodeStreamHeader(kind, 2, body, agent.key);
  const corpus = [
    proven('tcp', open(['127.0.0.1'])),
    proven('tcp', open(Array.from({ length: 16 }, (_, index) => `2001:db8::${index}`))),
    proven('tcp', Buffer.alloc(0)),
    proven('udp', Buffer.alloc(1024)),
    proven('inbound', open(['127.0.0.1'])),
    helloBytes(randomBytes(32)),
    helloBytes(agent.key),
  ];
  for (let round = fuzzRounds(400); round > 0; round -= 1) {
    const bytes = mutate(random, corpus);
    const stream = await connect(tunnel('web'));
    stream.end(bytes);
    const answer = await readAll(stream);
    stream.destroy();
    assert.ok(answer.length === 0 || answer.length === REPLY_BYTES, bytes.toString('hex'));
    if (answer.length > 0) assert.notEqual(decodeReply(answer).status, 'ok', bytes.toString('hex'));
  }
  const guest = parent.guest('web');
  await until(() => guest?.unproven.size === 0 && guest.usage.flows === 0, 'nothing is kept');
  assert.equal(agent.control.destroyed, false);
  assert.equal((await other.open(1)).reply.status, 'refused');
});

test('an association of any frames ends by itself at most, and its parent holds nothing', async (t) => {
  const seed = fuzzSeed();
  t.diagnostic(`seed ${seed}`);
  const random = new SeededRandom(seed);
  const { parent, tunnel } = await startParent(t, { web: {}, other: { egress: LOOPBACK_UDP } });
  const agent = await TestAgent.register(tunnel('web'));
  const peer = await udpPeer(t, '127.0.0.1', echo);
  const calm = new TestAssociation((await (await TestAgent.register(tunnel('other'))).associate()).stream);
  const corpus = [
    encodeDatagram({ address: '127.0.0.1', port: peer.port }, Buffer.from('payload')),
    encodeDatagram({ address: '::1', port: 9 }, Buffer.alloc(2000)),
    encodeDatagram({ address: '224.0.0.1', port: 9 }, Buffer.alloc(0)),
    encodeUndelivered({ address: '127.0.0.1', port: 9 }, 'denied'),
    encodeClose('timeout'),
  ];
  for (let round = fuzzRounds(300); round > 0; round -= 1) {
    const { stream, reply } = await agent.associate();
    assert.equal(reply.status, 'ok');
    const decoder = new UdpFrameDecoder();
    stream.on('data', (piece: Buffer) => decoder.push(piece));
    stream.end(mutate(random, corpus));
    await closed(stream);
    stream.destroy();
  }
  const guest = parent.guest('web');
  await until(() => guest?.usage.associations === 0, 'nothing is kept');
  calm.send(peer.port, 'still here');
  assert.equal((await calm.frame(0)).type, 'datagram');
});

test('a control stream of any bytes ends its own session at most', async (t) => {
  const seed = fuzzSeed();
  t.diagnostic(`seed ${seed}`);
  const random = new SeededRandom(seed);
  const { parent, tunnel } = await startParent(t, { web: {}, other: {} });
  const other = await TestAgent.register(tunnel('other'));
  const corpus = [
    encodeFrame({ type: 'ping', token: 1 }),
    encodeFrame({ type: 'pong', token: 1 }),
    encodeFrame({ type: 'reset', flowId: 2 }),
    encodeFrame({ type: 'goaway', deadlineMs: 1000 }),
    encodeFrame({ type: 'welcome', version: 1, capabilities: 1, keepAliveMs: 1 }),
  ];
  const key = randomBytes(32);
  let agent = await TestAgent.register(tunnel('web'), key);
  for (let round = fuzzRounds(300); round > 0; round -= 1) {
    if (parent.guest('web')?.session === undefined) agent = await TestAgent.register(tunnel('web'), key);
    agent.control.write(mutate(random, corpus));
    await new Promise((resolve) => setImmediate(resolve));
  }
  agent.close();
  await until(() => parent.guest('web')?.session === undefined, 'the session is gone');
  assert.equal((await other.open(1)).reply.status, 'refused');
  await TestAgent.register(tunnel('web'), key);
});
