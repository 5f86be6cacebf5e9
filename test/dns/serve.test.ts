import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { LeaseTable } from '../../guest/dns/leases.ts';
import { type Message, readMessage } from '../../guest/dns/message.ts';
import { DomainName } from '../../guest/dns/name.ts';
import { EDE } from '../../guest/dns/serve/ede.ts';
import { namePolicy } from '../../guest/dns/serve/name-policy.ts';
import { Responder } from '../../guest/dns/serve/responder.ts';
import { DnsServer, PIPELINE_MAX } from '../../guest/dns/serve/server.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { frame } from '../../guest/dns/upstream/frames.ts';
import { encodeQuery } from '../../guest/dns/upstream/query.ts';
import { udpUpstream } from '../../guest/dns/upstream/udp.ts';
import { compilePolicy } from '../../shared/policy/compile.ts';
import { decide } from '../../shared/policy/decide.ts';
import { parsePolicy } from '../../shared/policy/policy.ts';
import { until } from '../parent/setup.ts';
import { addressRdata, nameRdata } from './encode.ts';
import { TestWorld } from './world.ts';
import { TestZone } from './zone.ts';

const POLICY = `
version: 1
egress:
  allow:
    - { fqdn: ["**.example", plain.test, strict.test], ports: 443, name: names }
    - { fqdn: require.test, ports: 443, dnssec: require, name: strict }
    - { cidr: 10.1.0.0/16, ports: 443 }
  deny:
    - { fqdn: denied.example }
`;

function setUp() {
  const zone = new TestZone('example.');
  zone.add('www.example.', TYPE.A, addressRdata('192.0.2.1'), addressRdata('192.0.2.2'));
  zone.add('alias.example.', TYPE.CNAME, nameRdata('www.example.'));
  zone.add('denied.example.', TYPE.A, addressRdata('192.0.2.3'));
  zone.add('inside.example.', TYPE.A, addressRdata('127.0.0.1'), addressRdata('169.254.169.254'));
  zone.add('private.example.', TYPE.A, addressRdata('10.1.2.3'), addressRdata('10.2.2.3'));
  zone.add(
    'big.example.',
    TYPE.A,
    ...Array.from({ length: 100 }, (_, index) => addressRdata(`198.51.100.${index}`)),
  );
  zone.add('www.example.', TYPE.HTTPS, Buffer.from('000100', 'hex'));
  const unsigned = new TestZone('test.', { signed: false });
  unsigned
    .add('plain.test.', TYPE.A, addressRdata('192.0.2.9'))
    .add('require.test.', TYPE.A, addressRdata('192.0.2.9'));
  const world = new TestWorld(new TestZone('.'), zone, unsigned);
  const policy = compilePolicy(parsePolicy(POLICY, 'test'));
  const leases = new LeaseTable();
  const refused: string[] = [];
  const responder = new Responder({
    validator: world.validator(),
    policy: namePolicy(policy),
    leases,
    onRefused: ({ name }, { reason }) => refused.push(`${name} ${reason}`),
  });
  const ask = async (
    name: string,
    type: number = TYPE.A,
    flags = 0x0120,
    transport: 'udp' | 'tcp' = 'tcp',
  ) => {
    const query = encodeQuery(DomainName.parse(name), type);
    query.writeUInt16BE(flags, 2);
    const answer = await responder.respond(query, transport);
    assert.ok(answer);
    return { ...readMessage(answer), ede: edeIn(answer), octets: answer.length };
  };
  return { world, leases, policy, responder, refused, ask };
}

/** The code of the EDE option, where the message ends in an OPT record with one. */
function edeIn(wire: Buffer): number | undefined {
  const at = wire.lastIndexOf(Buffer.from([0, 0, TYPE.OPT]));
  const length = at < 0 ? 0 : wire.readUInt16BE(at + 9);
  return length === 0 ? undefined : wire.readUInt16BE(at + 15);
}

const AD = 0x20;
const data = (message: Message, type: number = TYPE.A): string[] =>
  message.answer.filter((record) => record.type === type).map(({ rdata }) => rdata.join('.'));

describe('the resolver as applications see it', () => {
  test('proven data: AD, signatures for DO, a lease before the answer', async () => {
    const { ask, leases, policy } = setUp();
    const answer = await ask('alias.example.');
    assert.equal(answer.rcode, 0);
    assert.ok(answer.flags & AD);
    assert.deepEqual(data(answer), ['192.0.2.1', '192.0.2.2']);
    assert.equal(answer.answer.filter(({ type }) => type === TYPE.RRSIG).length, 2);
    assert.deepEqual(leases.namesOf('192.0.2.1'), [{ name: 'alias.example', dnssec: 'secure' }]);
    assert.deepEqual(leases.list()[0]?.chain, ['alias.example', 'www.example']);
    const decision = decide(policy, { protocol: 'tcp', port: 443, address: '192.0.2.2' }, leases);
    assert.equal(decision.verdict, 'allow');
  });

  test('a name off the list, or denied, is refused and nothing is asked', async () => {
    const { ask, world, refused } = setUp();
    for (const name of ['evil.org.', 'denied.example.', 'a\\.b.example.', 'exfiltrated-secret.test.']) {
      const answer = await ask(name);
      assert.equal(answer.rcode, 5, name);
      assert.equal(answer.ede, EDE.BLOCKED);
    }
    assert.deepEqual(world.asked, []);
    assert.equal(refused.length, 4);
  });

  test('types that carry data out are refused; HTTPS is answered and leases nothing', async () => {
    const { ask, world, leases } = setUp();
    for (const type of [TYPE.TXT, TYPE.ANY, 10, TYPE.MX])
      assert.equal((await ask('www.example.', type)).rcode, 5);
    assert.deepEqual(world.asked, []);
    const answer = await ask('www.example.', TYPE.HTTPS);
    assert.equal(data(answer, TYPE.HTTPS).length, 1);
    assert.equal(leases.count, 0);
  });

  test('addresses in special space are left out unless a rule names them', async () => {
    const { ask, leases } = setUp();
    const inside = await ask('inside.example.');
    assert.equal(inside.rcode, 5);
    assert.deepEqual(data(inside), []);
    assert.deepEqual(data(await ask('private.example.')), ['10.1.2.3']);
    assert.deepEqual(
      leases.list().map(({ address }) => address),
      ['10.1.2.3'],
    );
  });

  test('an unsigned answer binds under validate and not under require', async () => {
    const { ask, leases } = setUp();
    const plain = await ask('plain.test.');
    assert.deepEqual(data(plain), ['192.0.2.9']);
    assert.equal(plain.flags & AD, 0);
    const strict = await ask('require.test.');
    assert.equal(strict.rcode, 5);
    assert.deepEqual(
      leases.list().map(({ name, dnssec }) => `${name} ${dnssec}`),
      ['plain.test insecure'],
    );
  });

  test('bogus is SERVFAIL with its EDE; with CD the data comes, without AD and without a lease', async () => {
    const { ask, leases, world } = setUp();
    world.tamper = (message, _name, type) => {
      if (type === TYPE.A) message.answer = message.answer.filter((record) => record.type !== TYPE.RRSIG);
    };
    const plain = await ask('www.example.');
    assert.equal(plain.rcode, 2);
    assert.equal(plain.ede, EDE.RRSIGS_MISSING);
    const unchecked = await ask('www.example.', TYPE.A, 0x0130);
    assert.equal(unchecked.rcode, 0);
    assert.equal(unchecked.flags & AD, 0);
    assert.ok(unchecked.flags & 0x10);
    assert.equal(data(unchecked).length, 2);
    assert.equal(leases.count, 0);
  });

  test('no name and no data come with their SOA and, for DO, their proof', async () => {
    const { ask } = setUp();
    for (const [name, rcode] of [
      ['none.example.', 3],
      ['alias.example.', 0],
    ] as const) {
      const answer = await ask(name, TYPE.AAAA);
      assert.equal(answer.rcode, rcode);
      assert.ok(answer.flags & AD);
      assert.ok(answer.authority.some(({ type }) => type === TYPE.SOA));
      assert.ok(answer.authority.some(({ type }) => type === TYPE.NSEC));
    }
  });

  test('what does not fit a datagram comes truncated, and whole over TCP', async () => {
    const { ask } = setUp();
    const short = await ask('big.example.', TYPE.A, 0x0120, 'udp');
    assert.ok(short.flags & 0x0200);
    assert.ok(short.octets <= 512);
    assert.equal(data(await ask('big.example.')).length, 100);
  });

  test('messages that are no question', async () => {
    const { responder } = setUp();
    const query = encodeQuery(DomainName.parse('www.example.'), TYPE.A);
    const spoiled = (spoil: (wire: Buffer) => void): Buffer => {
      const wire = Buffer.from(query);
      spoil(wire);
      return wire;
    };
    const rcodeOf = async (wire: Buffer): Promise<number | undefined> => {
      const answer = await responder.respond(wire, 'udp');
      return answer && readMessage(answer).rcode;
    };
    assert.equal(await rcodeOf(Buffer.alloc(5)), undefined);
    assert.equal(await rcodeOf(spoiled((wire) => wire.writeUInt16BE(0x8100, 2))), undefined);
    assert.equal(await rcodeOf(spoiled((wire) => wire.writeUInt16BE(0x2900, 2))), 4);
    assert.equal(await rcodeOf(query.subarray(0, 20)), 1);
    assert.equal(await rcodeOf(spoiled((wire) => wire.writeUInt16BE(3, query.length - 13))), 5);
    assert.equal(await rcodeOf(spoiled((wire) => wire.writeUInt8(1, query.length - 5))), 16);
  });
});

describe('on the wire', () => {
  async function serving(t: TestContext) {
    const { responder } = setUp();
    const server = new DnsServer(responder);
    t.after(() => server.close());
    return server.listen({ address: '127.0.0.1', port: 0 });
  }

  test('UDP and TCP on one port; a connection takes several questions, cut anywhere', async (t) => {
    const at = await serving(t);
    const query = encodeQuery(DomainName.parse('www.example.'), TYPE.A);
    const answer = await udpUpstream(at).exchange(query, { signal: AbortSignal.timeout(5000) });
    assert.equal(data(readMessage(answer)).length, 2);
    const socket = connect(at.port, at.address);
    t.after(() => socket.destroy());
    const framed = Buffer.concat([Buffer.from([0, query.length]), query]);
    const twice = Buffer.concat([framed, framed]);
    socket.write(twice.subarray(0, 10));
    await once(socket, 'connect');
    socket.write(twice.subarray(10));
    let received = Buffer.alloc(0);
    let count = 0;
    for await (const chunk of socket) {
      received = Buffer.concat([received, chunk as Buffer]);
      while (received.length > 2 && received.length >= 2 + received.readUInt16BE(0)) {
        received = received.subarray(2 + received.readUInt16BE(0));
        count += 1;
      }
      if (count === 2) break;
    }
    assert.equal(count, 2);
  });

  test('a piece with a thousand questions puts a pipeline of them into work, and all are answered', async (t) => {
    const waiting: (() => void)[] = [];
    let inWork = 0;
    let mostInWork = 0;
    const respond = async (): Promise<Buffer> => {
      inWork += 1;
      mostInWork = Math.max(mostInWork, inWork);
      await new Promise<void>((resolve) => waiting.push(resolve));
      inWork -= 1;
      return Buffer.alloc(12);
    };
    const server = new DnsServer({ respond, repeat: () => undefined } as unknown as Responder);
    t.after(() => server.close());
    const { port } = await server.listen({ address: '127.0.0.1', port: 0 });
    const socket = connect(port, '127.0.0.1');
    t.after(() => socket.destroy());
    let receivedBytes = 0;
    socket.on('data', (piece) => {
      receivedBytes += piece.length;
    });
    const question = frame(encodeQuery(DomainName.parse('www.example.'), TYPE.A));
    socket.write(Buffer.concat(Array.from({ length: 1000 }, () => question)));
    await until(() => {
      for (const goOn of waiting.splice(0)) goOn();
      return receivedBytes === 1000 * 14;
    }, 'the answers');
    assert.equal(mostInWork, PIPELINE_MAX);
  });

  test('a port that is taken is a coded error', async (t) => {
    const at = await serving(t);
    const { responder } = setUp();
    await assert.rejects(new DnsServer(responder).listen(at), { code: 'ERR_LISTEN_FAILED' });
  });
});
