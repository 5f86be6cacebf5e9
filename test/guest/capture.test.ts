import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { readMessage } from '../../guest/dns/message.ts';
import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { encodeQuery } from '../../guest/dns/upstream/query.ts';
import { udpUpstream } from '../../guest/dns/upstream/udp.ts';
import { readAll } from './agent-fixture.ts';
import { newWorld, type SignedFixture, startSigned } from './signed-world.ts';
import { socksConnect } from './socks-client.ts';

/** Ports that nobody else of these tests binds in 127.100.0.0/16. */
const [FIRST, SECOND, THIRD] = [28_080, 28_081, 28_082];
const POLICY = `egress:
  allow:
    - { name: first, fqdn: www.example, ports: ${FIRST} }
    - { name: second, fqdn: other.example, ports: [${SECOND}, ${THIRD}], dnssec: require }
    - { name: rest, fqdn: ["*.example", plain.test], ports: ${FIRST} }
    - { name: strict, fqdn: plain2.test, ports: ${FIRST}, dnssec: require }
  deny: [{ fqdn: other.example, ports: ${THIRD} }]`;
const REFUSED = 5;
const SERVFAIL = 2;

async function ask(fixture: SignedFixture, name: string, type: number = TYPE.A) {
  const [address = '', port = ''] = (fixture.agent.report().listeners['dns'] ?? '').split(':');
  const upstream = udpUpstream({ address, port: Number(port) });
  const query = encodeQuery(DomainName.parse(name), type);
  query.writeUInt16BE(0x0100, 2);
  const message = readMessage(await upstream.exchange(query, { signal: AbortSignal.timeout(10_000) }));
  return { rcode: message.rcode, data: message.answer.map(({ rdata }) => rdata.join('.')) };
}

async function addressOf(fixture: SignedFixture, name: string): Promise<string> {
  const { rcode, data } = await ask(fixture, name);
  assert.equal(rcode, 0, name);
  assert.equal(data.length, 1);
  assert.match(data[0] ?? '', /^127\.100\./);
  return data[0] ?? '';
}

async function dial(host: string, port: number): Promise<{ socket: Socket; error?: string | undefined }> {
  const socket = connect({ host, port, allowHalfOpen: true });
  const [error] = await Promise.race([
    once(socket, 'connect'),
    new Promise<[NodeJS.ErrnoException]>((resolve) => socket.once('error', (cause) => resolve([cause]))),
  ]);
  return { socket, error: error?.code };
}

async function echoed(host: string, port: number): Promise<string> {
  const { socket, error } = await dial(host, port);
  assert.equal(error, undefined);
  socket.end('hello');
  const { bytes, error: later } = await readAll(socket);
  socket.destroy();
  return later?.code ?? bytes.toString();
}

describe('names captured by stand-ins', () => {
  let fixture: SignedFixture;
  before(async () => {
    const config = 'dns: { listen: "127.0.0.1:0" }\ncapture: names';
    fixture = await startSigned({ policy: POLICY, config, ports: [FIRST, SECOND, THIRD] });
  });
  after(() => fixture.close());

  it('lead to the name that was asked for, with its own rule, though the address is one', async () => {
    const first = await addressOf(fixture, 'www.example');
    const second = await addressOf(fixture, 'other.example');
    assert.notEqual(first, second);
    assert.equal(await echoed(first, FIRST), 'hello');
    assert.equal(await echoed(second, SECOND), 'hello');
    assert.deepEqual(fixture.dialled(), [`2001:db8::7 192.0.2.7 ${FIRST}`, `192.0.2.7 ${SECOND}`]);
    const opened = fixture.lines.filter(({ event, via }) => event === 'flow.opened' && via === 'names');
    assert.deepEqual(
      opened.map(({ name, rule, dnssec }) => [name, rule, dnssec]),
      [
        ['www.example', 'first', 'secure'],
        ['other.example', 'second', 'secure'],
      ],
    );
    // The other's port, and the one that is denied, are nobody's.
    for (const [host, port] of [
      [first, SECOND],
      [second, FIRST + 100],
      [second, THIRD],
    ] as const)
      assert.equal((await dial(host, port)).error, 'ECONNREFUSED');
  });

  it('are stable, and never where others listen', async () => {
    const first = await addressOf(fixture, 'www.example');
    assert.equal(await addressOf(fixture, 'WWW.example.'), first);
    assert.ok(!['127.0.0.1', '127.0.0.53'].includes(first));
    assert.deepEqual(fixture.agent.report().names?.standIns, { count: 2, listenerCount: 3 });
  });

  it('are given to names of either family, and nothing else is told', async () => {
    for (const type of [TYPE.AAAA, TYPE.HTTPS, TYPE.SVCB])
      assert.deepEqual(await ask(fixture, 'www.example', type), { rcode: 0, data: [] });
    assert.equal((await ask(fixture, 'nothing.example')).rcode, 3);
  });

  it('are refused to names off the list and to what leads inside; a listener is not made for them', async () => {
    const { length } = fixture.world.asked;
    for (const name of ['evil.org', 'secret.a.example', 'x.test'])
      assert.equal((await ask(fixture, name)).rcode, REFUSED);
    assert.equal(fixture.world.asked.length, length);
    assert.equal((await ask(fixture, 'inside.example')).rcode, REFUSED);
    assert.equal((await ask(fixture, 'www.example', TYPE.TXT)).rcode, REFUSED);
    const { names, listeners } = fixture.agent.report();
    assert.deepEqual(names?.standIns, { count: 2, listenerCount: 3 });
    assert.equal(names?.questions?.refused, 5);
    assert.match(listeners['dns'] ?? '', /^127\.0\.0\.1:\d+$/);
    const refused = fixture.lines.filter(({ event }) => event === 'name.refused');
    assert.equal(refused.length, 5);
    assert.equal(refused[0]?.['name'], 'evil.org.');
  });

  it('mean their names to the SOCKS proxy too', async () => {
    const first = await addressOf(fixture, 'www.example');
    const { socket, reply } = await socksConnect(fixture.socksPort, first, FIRST);
    assert.equal(reply, 0);
    socket.destroy();
    assert.equal((await socksConnect(fixture.socksPort, '127.100.200.200', FIRST)).reply, 2);
  });

  it('reset the application where the destination refuses', async () => {
    const at = await addressOf(fixture, 'mixed.example');
    fixture.parent.onOpen = (stream) => fixture.parent.refuse(stream, 'refused');
    assert.equal(await echoed(at, FIRST), 'ECONNRESET');
    fixture.parent.onOpen = undefined;
  });
});

describe('names captured, when their answers turn', () => {
  const config = 'dns: { listen: "127.0.0.1:0" }\ncapture: names';

  it('bogus: SERVFAIL, no stand-in', async (t) => {
    const world = newWorld();
    world.tamper = (message) => {
      message.answer = message.answer.filter(({ type }) => type !== TYPE.RRSIG);
    };
    const fixture = await startSigned({ policy: POLICY, config, world });
    t.after(() => fixture.close());
    assert.equal((await ask(fixture, 'www.example')).rcode, SERVFAIL);
    assert.equal(fixture.agent.report().names?.standIns?.count, 0);
    const failed = fixture.lines.find(({ event }) => event === 'name.failed');
    assert.equal(failed?.['dnssec'], 'bogus');
    assert.equal(failed?.['code'], 'ERR_DNS_STRIPPED');
  });

  it('a port that cannot be listened on is told at start', async () => {
    const taken = createServer().listen(FIRST, '127.100.0.1');
    await once(taken, 'listening');
    await assert.rejects(startSigned({ policy: POLICY, config }), { code: 'ERR_LISTEN_FAILED' });
    taken.close();
  });
});
