import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { pino } from 'pino';
import { Audit } from '../../../parent/audit.ts';
import { Association, type AssociationEnd, REMOTES_MAX } from '../../../parent/nat/association.ts';
import { streamPair } from '../../../shared/transport/pair.ts';
import { encodeDatagram } from '../../../shared/wire/datagram.ts';
import { encodeStreamHeader } from '../../../shared/wire/header.ts';
import { closed, connect, TestAgent } from '../agent.ts';
import { startParent, until, usual } from '../setup.ts';
import { echo, LOOPBACK_UDP, TestAssociation, udpPeer } from './datagrams.ts';

const UDP = { web: { egress: LOOPBACK_UDP } };

async function associated(agent: TestAgent): Promise<TestAssociation> {
  const { stream, reply } = await agent.associate();
  assert.equal(reply.status, 'ok');
  return new TestAssociation(stream);
}

test('carries datagrams both ways, from one port to many remotes, of every size', async (t) => {
  const { parent, tunnel } = await startParent(t, UDP);
  const [one, two] = [await udpPeer(t, '127.0.0.1', echo), await udpPeer(t, '127.0.0.2', echo)];
  const agent = await TestAgent.register(tunnel('web'));
  const association = await associated(agent);
  association.send(one.port, 'hello');
  assert.deepEqual(await association.frame(0), {
    type: 'datagram',
    remote: { address: '127.0.0.1', port: one.port },
    payload: Buffer.from('hello'),
  });
  association.send(two.port, '', '127.0.0.2');
  assert.deepEqual(await association.frame(1), {
    type: 'datagram',
    remote: { address: '127.0.0.2', port: two.port },
    payload: Buffer.alloc(0),
  });
  assert.equal(one.received[0]?.from.port, two.received[0]?.from.port);
  const large = randomBytes(60_000);
  association.send(one.port, large);
  const frame = await association.frame(2);
  assert.ok(frame.type === 'datagram' && frame.payload.equals(large));
  const metrics = await parent.metrics.registry.metrics();
  assert.match(metrics, /datagrams_total\{guest="web",direction="out"\} 3\n/);
  assert.match(metrics, /datagram_bytes_total\{guest="web",direction="in"\} 60005\n/);
  assert.match(metrics, /opens_total\{guest="web",direction="udp",outcome="ok"\} 1\n/);
  assert.match(metrics, /associations\{guest="web"\} 1\n/);
  association.stream.end();
  await closed(association.stream);
  await until(() => parent.guest('web')?.usage.associations === 0, 'it is counted out');
});

test('carries IPv6, and an IPv4-mapped remote as what it is', async (t) => {
  const { tunnel } = await startParent(t, UDP);
  const [six, four] = [await udpPeer(t, '::1', echo), await udpPeer(t, '127.0.0.1', echo)];
  const association = await associated(await TestAgent.register(tunnel('web')));
  association.send(six.port, 'six', '::1');
  await association.frame(0);
  association.send(four.port, 'four', '::ffff:127.0.0.1');
  await association.frame(1);
  assert.deepEqual(association.texts, ['datagram ::1 six', 'datagram 127.0.0.1 four']);
});

test('hands on what comes from an address that was sent to, from any port of it, and nothing else', async (t) => {
  const { parent, tunnel } = await startParent(t, UDP);
  const known = await udpPeer(t);
  const [sibling, stranger] = [await udpPeer(t), await udpPeer(t, '127.0.0.3')];
  const association = await associated(await TestAgent.register(tunnel('web')));
  association.send(known.port, 'where I am');
  await until(() => known.received.length === 1, 'the association is known');
  const port = known.received[0]?.from.port ?? 0;
  stranger.socket.send('forged', port, '127.0.0.1');
  const dropped = () => parent.guest('web')?.datagrams.dropped.filtered;
  await until(() => dropped() === 1, 'the stranger is filtered');
  sibling.socket.send('from another port', port, '127.0.0.1');
  await association.frame(0);
  assert.deepEqual(association.texts, ['datagram 127.0.0.1 from another port']);
});

test('one that the guest ends with its header leaves nothing behind', async (t) => {
  const { parent, tunnel } = await startParent(t, UDP);
  const agent = await TestAgent.register(tunnel('web'));
  for (let index = 0; index < 20; index += 1) {
    const stream = await connect(tunnel('web'));
    stream.end(encodeStreamHeader('udp', agent.takeFlowId(), Buffer.alloc(0), agent.key));
    await closed(stream);
    stream.destroy();
  }
  await until(() => parent.guest('web')?.usage.associations === 0, 'all are counted out');
});

test('the address that was sent to longest ago may not answer once too many have been', async (t) => {
  const { parent, tunnel } = await startParent(t, UDP);
  const peer = await udpPeer(t);
  const association = await associated(await TestAgent.register(tunnel('web')));
  association.send(peer.port, 'where I am');
  await until(() => peer.received.length === 1, 'the association is known');
  const port = peer.received[0]?.from.port ?? 0;
  for (let index = 0; index < REMOTES_MAX; index += 1)
    association.send(9, '', `127.1.${index >> 8}.${index & 0xff}`);
  await until(() => parent.guest('web')?.datagrams.out === REMOTES_MAX + 1, 'all are sent');
  peer.socket.send('late', port, '127.0.0.1');
  await until(() => parent.guest('web')?.datagrams.dropped.filtered === 1, 'it is filtered');
});

test('refuses what the guard does not name, tells the guest, writes it down, and goes on', async (t) => {
  const { parent, tunnel, lines } = await startParent(t, {
    web: { egress: { allow: 'any', deny: [{ ip: '198.51.100.9', protocol: 'udp', ports: 53 }] } },
    tcp: { egress: { allow: [{ cidr: '127.0.0.0/8', ports: '1-65535' }] } },
  });
  const peer = await udpPeer(t, '127.0.0.1', echo);
  const association = await associated(await TestAgent.register(tunnel('web')));
  const refused = [
    '127.0.0.1',
    '::1',
    '::ffff:7f00:1',
    '169.254.169.254',
    'fd00:ec2::254',
    '168.63.129.16',
    'fe80::1',
    '224.0.0.251',
    'ff02::fb',
    '255.255.255.255',
    '0.0.0.0',
    '198.51.100.9',
  ];
  for (const address of refused) association.send(address === '198.51.100.9' ? 53 : peer.port, 'x', address);
  await association.frame(refused.length - 1);
  assert.deepEqual(
    association.texts,
    refused.map((address) => `undelivered ${address} denied`),
  );
  assert.equal(peer.received.length, 0);
  const said = lines.filter(({ event }) => event === 'flow.refused');
  assert.deepEqual([...new Set(said.map(({ protocol }) => protocol))], ['udp']);
  assert.equal(said.length, refused.length);
  assert.equal(parent.guest('web')?.datagrams.dropped.denied, refused.length);
  // A rule for TCP names nothing for UDP.
  const other = await associated(await TestAgent.register(tunnel('tcp')));
  other.send(peer.port, 'x');
  await other.frame(0);
  assert.deepEqual(other.texts, ['undelivered 127.0.0.1 denied']);
});

test('a destination that the kernel refuses is told, and the association goes on', async (t) => {
  const { tunnel } = await startParent(t, UDP);
  const peer = await udpPeer(t, '127.0.0.1', echo);
  const association = await associated(await TestAgent.register(tunnel('web')));
  // The broadcast address of loopback: no socket here asks for SO_BROADCAST.
  association.send(peer.port, 'x', '127.255.255.255');
  await association.frame(0);
  association.send(peer.port, 'still here');
  await association.frame(1);
  assert.deepEqual(association.texts, [
    'undelivered 127.255.255.255 unreachable',
    'datagram 127.0.0.1 still here',
  ]);
});

test('over its quota a guest gets limit, at once, and others do not feel it', async (t) => {
  const { parent, tunnel, lines } = await startParent(t, {
    web: { egress: LOOPBACK_UDP, quotas: { associations: 2 } },
    other: {},
  });
  const agent = await TestAgent.register(tunnel('web'));
  const first = await associated(agent);
  await associated(agent);
  assert.equal((await agent.associate()).reply.status, 'limit');
  await associated(await TestAgent.register(tunnel('other')));
  first.stream.destroy();
  await until(() => parent.guest('web')?.usage.associations === 1, 'the first is counted out');
  await associated(agent);
  assert.ok(lines.some(({ event, quota }) => event === 'flow.limited' && quota === 'associations'));
});

test('bytes of no protocol end the association alone, with the reason, and are written down', async (t) => {
  const { parent, tunnel, lines } = await startParent(t, UDP);
  const peer = await udpPeer(t, '127.0.0.1', echo);
  const agent = await TestAgent.register(tunnel('web'));
  const good = await associated(agent);
  for (const garbage of [
    'ffffffff',
    '0100fff7',
    '0100000704c00002350000',
    '0300000452040000',
    '01000001ff',
  ]) {
    const bad = await associated(agent);
    bad.stream.write(Buffer.from(garbage, 'hex'));
    await closed(bad.stream);
    assert.deepEqual(bad.texts, ['close malformed'], garbage);
  }
  assert.equal((await agent.associate(undefined, Buffer.alloc(1))).reply.status, 'malformed');
  assert.equal((await agent.associate(3)).reply.status, 'malformed');
  await agent.associate(1000);
  assert.equal((await agent.associate(1000)).reply.status, 'malformed');
  good.send(peer.port, 'still here');
  await good.frame(0);
  assert.equal(parent.guest('web')?.usage.associations, 2);
  assert.ok(lines.some(({ event }) => event === 'association.violation'));
});

test('a guest that does not read loses datagrams, not the parent its memory, and whole frames come out', async (t) => {
  const { parent, tunnel } = await startParent(t, UDP);
  const peer = await udpPeer(t);
  const agent = await TestAgent.register(tunnel('web'));
  const { stream } = await agent.associate();
  stream.write(encodeDatagram({ address: '127.0.0.1', port: peer.port }, Buffer.from('flood me')));
  await until(() => peer.received.length === 1, 'the association is known');
  const port = peer.received[0]?.from.port ?? 0;
  const flood = setInterval(() => {
    for (let index = 0; index < 50; index += 1)
      peer.socket.send(Buffer.alloc(1200, index), port, '127.0.0.1');
  }, 1);
  t.after(() => clearInterval(flood));
  await until(() => (parent.guest('web')?.datagrams.dropped['guest-slow'] ?? 0) > 100, 'some are dropped');
  clearInterval(flood);
  const association = new TestAssociation(stream);
  await until(() => association.frames.length >= 50, 'what was kept comes');
  for (const frame of association.frames)
    assert.ok(frame.type === 'datagram' && frame.payload.length === 1200);
});

test('more than its rate from outside is dropped; more than its rate from the guest waits in the guest', async (t) => {
  const { parent, tunnel } = await startParent(t, {
    web: { egress: LOOPBACK_UDP, quotas: { datagramsPerSecond: 100 } },
  });
  const sink = await udpPeer(t);
  const agent = await TestAgent.register(tunnel('web'));
  const association = await associated(agent);
  for (let index = 0; index < 40; index += 1) association.send(sink.port, String(index));
  await until(() => sink.received.length === 40, 'all of them arrive');
  assert.deepEqual(
    sink.received.map(({ payload }) => Number(payload.toString())),
    Array.from({ length: 40 }, (_, index) => index),
  );
  const port = sink.received[0]?.from.port ?? 0;
  for (let index = 0; index < 200; index += 1) sink.socket.send('x', port, '127.0.0.1');
  await until(() => (parent.guest('web')?.datagrams.dropped.rate ?? 0) > 0, 'some are dropped');
});

test('ends with a word when nothing is sent for its time; what comes in does not keep it', async (t) => {
  const started = await startParent(t, UDP);
  const guest = started.parent.guest('web');
  assert.ok(guest !== undefined);
  const peer = await udpPeer(t, '127.0.0.1', echo);
  const [near, far] = streamPair();
  const ends: AssociationEnd[] = [];
  near.on('error', () => {});
  new Association({
    guest,
    stream: far,
    audit: new Audit(pino({ level: 'silent' })),
    idleMs: 50,
    onDone: (end) => ends.push(end),
  });
  const association = new TestAssociation(near);
  association.send(peer.port, 'x');
  await association.frame(0);
  const source = peer.received[0]?.from.port ?? 0;
  const noise = setInterval(() => peer.socket.send('noise', source, '127.0.0.1'), 10);
  t.after(() => clearInterval(noise));
  await closed(near);
  assert.equal(association.texts.at(-1), 'close timeout');
  assert.deepEqual(ends, ['idle']);
});

test('a guard that is reloaded holds at once; RESET, a lost session and a drain end associations', async (t) => {
  const { parent, tunnel, folder, config } = await startParent(t, {
    ...UDP,
    other: { egress: LOOPBACK_UDP },
  });
  const peer = await udpPeer(t, '127.0.0.1', echo);
  const agent = await TestAgent.register(tunnel('web'));
  const [kept, reset] = [await associated(agent), await agent.associate(100)];
  kept.send(peer.port, 'before');
  await kept.frame(0);
  const changed = usual(folder, { web: { egress: { allow: [] } }, other: { egress: LOOPBACK_UDP } });
  await parent.reload(config({ guests: changed['guests'] }));
  kept.send(peer.port, 'after');
  await kept.frame(1);
  assert.deepEqual(kept.texts, ['datagram 127.0.0.1 before', 'undelivered 127.0.0.1 denied']);
  agent.send({ type: 'reset', flowId: 100 });
  await closed(reset.stream);
  const other = await TestAgent.register(tunnel('other'));
  const another = await associated(other);
  agent.close();
  await closed(kept.stream);
  assert.equal(another.stream.destroyed, false);
  assert.equal(parent.guest('other')?.usage.associations, 1);
  // The drain's own deadline is far away: an association does not hold it up.
  await parent.drain(600_000);
  await closed(another.stream);
  assert.equal(parent.guest('other')?.usage.associations, 0);
});

test('a flood through one association leaves the others of the loop their turns', async (t) => {
  const { tunnel } = await startParent(t, { web: { egress: LOOPBACK_UDP }, other: { egress: LOOPBACK_UDP } });
  const peer = await udpPeer(t, '127.0.0.1', echo);
  const sink = await udpPeer(t, '127.0.0.2');
  const flooding = await associated(await TestAgent.register(tunnel('web')));
  const calm = await associated(await TestAgent.register(tunnel('other')));
  for (let index = 0; index < 4000; index += 1) flooding.send(sink.port, 'x', '127.0.0.2');
  for (let index = 0; index < 5; index += 1) {
    calm.send(peer.port, String(index));
    await calm.frame(index);
  }
  assert.equal(calm.frames.length, 5);
});
