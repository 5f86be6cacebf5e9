import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { type Answer, type DecodedPacket, encode } from 'dns-packet';
import { interleaveFamilies } from '../../guest/resolve/order.ts';
import { type Fixture, listenTcp, startFixture } from './agent-fixture.ts';
import { answerFor, serveDns, type Zone } from './dns-server.ts';
import { socksConnect } from './socks-client.ts';

const ZONE: Zone = {
  'api.example.com': { A: ['192.0.2.7'], AAAA: ['2001:db8::7'] },
  'alias.example.com': { CNAME: 'target.example.net' },
  'target.example.net': { A: ['192.0.2.8'] },
  'loop.example.com': { CNAME: 'loop2.example.com' },
  'loop2.example.com': { CNAME: 'loop.example.com' },
  'empty.example.com': {},
  'inside.example.com': { A: ['127.0.0.1', '169.254.169.254', '10.0.0.1'], AAAA: ['::1', 'fd00:ec2::254'] },
  'mixed.example.com': { A: ['127.0.0.1', '192.0.2.7'] },
  'mapped.example.com': { AAAA: ['::ffff:127.0.0.1', '64:ff9b::7f00:1'] },
  'denied.example.com': { A: ['192.0.2.99'] },
  'signed.example.com': { A: ['192.0.2.7'] },
  'once.example.com': { A: ['192.0.2.7'], ttl: 0 },
};
const POLICY = `egress:
  allow: [{fqdn: ["*.example.com"], ports: 80}, {fqdn: signed.example.com, ports: 81, dnssec: require}]
  deny: [{ip: 192.0.2.99}]`;

interface World {
  readonly fixture: Fixture;
  readonly asked: string[];
  close(): Promise<void>;
}

async function startWorld(
  serve?: (query: DecodedPacket) => Buffer | undefined,
  resolvers: readonly string[] = ['192.0.2.53'],
): Promise<World> {
  const asked: string[] = [];
  const zone = answerFor(ZONE, (name, type) => asked.push(`${name} ${type}`));
  const dns = await listenTcp(serve === undefined ? zone : serveDns(serve));
  const echo = await listenTcp((socket) => socket.pipe(socket));
  const fixture = await startFixture({ policy: POLICY, resolvers });
  fixture.parent.route('192.0.2.53', 53, dns.server);
  for (const address of ['192.0.2.7', '2001:db8::7', '192.0.2.8'])
    fixture.parent.route(address, 80, echo.server);
  const close = async (): Promise<void> => {
    await fixture.close();
    dns.close();
    echo.close();
  };
  return { fixture, asked, close };
}

describe('names given to the proxies', async () => {
  const { fixture, asked, close } = await startWorld();
  after(close);
  const opens = () => fixture.parent.opens;
  const connect = async (host: string, port = 80): Promise<number> => {
    const { socket, reply } = await socksConnect(fixture.socksPort, host, port);
    socket.destroy();
    return reply;
  };

  it('are resolved in the guest, both families, and offered IPv6 first', async () => {
    assert.equal(await connect('api.example.com'), 0);
    assert.deepEqual(asked.sort(), ['api.example.com A', 'api.example.com AAAA']);
    assert.deepEqual(
      opens().map(({ port, addresses }) => [port, ...addresses]),
      [
        [53, '192.0.2.53'],
        [80, '2001:db8::7', '192.0.2.7'],
      ],
    );
  });

  it('are the same in any spelling, and are cached', async () => {
    asked.length = 0;
    for (const host of ['API.Example.COM', 'api.example.com.', 'api.EXAMPLE.com.'])
      assert.equal(await connect(host), 0);
    assert.deepEqual(asked, []);
  });

  it('are asked for again when their time to live is 0, together when asked at once', async () => {
    asked.length = 0;
    await Promise.all(Array.from({ length: 5 }, () => connect('once.example.com')));
    assert.equal(asked.length, 2);
    await connect('once.example.com');
    assert.equal(asked.length, 4);
  });

  it('are followed through CNAMEs, whose targets need no rule', async () => {
    assert.equal(await connect('alias.example.com'), 0);
    assert.deepEqual(opens().at(-1)?.addresses, ['192.0.2.8']);
  });

  it('off the list leave no trace outside', async () => {
    asked.length = 0;
    const count = opens().length;
    for (const host of ['a.b.example.com', 'example.com', 'target.example.net', 'secret-data.evil.example']) {
      assert.equal(await connect(host), 2, host);
    }
    assert.equal(await connect('api.example.com', 443), 2);
    assert.deepEqual(asked, []);
    assert.equal(opens().length, count);
  });

  it('that lead inside are refused, whatever the family or the embedding', async () => {
    const count = opens().length;
    for (const host of ['inside.example.com', 'mapped.example.com'])
      assert.equal(await connect(host), 2, host);
    assert.equal(await connect('denied.example.com'), 2);
    // Each was asked for; none was dialled.
    assert.ok(
      opens()
        .slice(count)
        .every(({ port }) => port === 53),
    );
    assert.equal(await connect('mixed.example.com'), 0);
    assert.deepEqual(opens().at(-1)?.addresses, ['192.0.2.7']);
  });

  it('without an address are host unreachable', async () => {
    for (const host of ['nothing.example.com', 'empty.example.com', 'loop.example.com']) {
      assert.equal(await connect(host), 4, host);
    }
    assert.equal(fixture.agent.report().refusals['ERR_RESOLVE_NOT_FOUND'], 2);
  });

  it('of rules that require a signature get no address from a resolver that checks none', async () => {
    assert.equal(await connect('signed.example.com', 81), 2);
  });
});

describe('a resolver that answers wrongly', () => {
  const answer = (query: DecodedPacket, change: object, answers: Answer[] = []): Buffer =>
    encode({
      type: 'response',
      id: query.id ?? 0,
      flags: 0x180,
      questions: query.questions ?? [],
      answers,
      ...change,
    });
  const forged: Answer[] = [{ type: 'A', name: 'api.example.com', ttl: 60, data: '192.0.2.7' }];
  const other = [{ name: 'evil.example', type: 'A', class: 'IN' }] as const;
  const lies: [name: string, serve: (query: DecodedPacket) => Buffer | undefined][] = [
    ['SERVFAIL', (query) => answer(query, { flags: 0x182 })],
    ['REFUSED', (query) => answer(query, { flags: 0x185 })],
    ['truncation', (query) => answer(query, { flags: 0x380 }, forged)],
    ['another id', (query) => answer(query, { id: ((query.id ?? 0) + 1) & 0xffff }, forged)],
    ['another question', (query) => answer(query, { questions: other }, forged)],
    ['no question', (query) => answer(query, { questions: [] }, forged)],
    ['a query', (query) => answer(query, { type: 'query' }, forged)],
    [
      'foreign records',
      (query) => answer(query, {}, [{ type: 'A', name: 'evil.example', ttl: 60, data: '192.0.2.7' }]),
    ],
    ['garbage', () => Buffer.alloc(600, 0xff)],
    ['a header alone', (query) => answer(query, {}, forged).subarray(0, 12)],
    ['half a record', (query) => answer(query, {}, forged).subarray(0, 40)],
    ['too much', () => Buffer.alloc(20_000)],
  ];
  for (const [name, serve] of lies) {
    it(`with ${name}: host unreachable, and nothing is dialled`, async () => {
      const { fixture, close } = await startWorld(serve);
      const { socket, reply } = await socksConnect(fixture.socksPort, 'api.example.com', 80);
      socket.destroy();
      assert.equal(reply, 4);
      assert.ok(fixture.parent.opens.every(({ port }) => port === 53));
      await close();
    });
  }

  it('is passed over for the next one', async () => {
    const { fixture, close } = await startWorld(undefined, ['192.0.2.54', '192.0.2.53']);
    const { socket, reply } = await socksConnect(fixture.socksPort, 'api.example.com', 80);
    socket.destroy();
    assert.equal(reply, 0);
    assert.deepEqual(
      fixture.parent.opens.map(({ addresses }) => addresses[0]),
      ['192.0.2.54', '192.0.2.53', '2001:db8::7'],
    );
    await close();
  });

  it('gives no more addresses than an OPEN carries', async () => {
    const many = (query: DecodedPacket): Buffer => {
      const type = query.questions?.[0]?.type;
      const data = (index: number) => (type === 'A' ? `192.0.2.${index}` : `2001:db8::${index}`);
      const answers = Array.from({ length: 60 }, (_, index) => ({
        type,
        name: 'api.example.com',
        ttl: 60,
        data: data(index),
      }));
      return answer(query, {}, answers as Answer[]);
    };
    const { fixture, close } = await startWorld(many);
    const { socket, reply } = await socksConnect(fixture.socksPort, 'api.example.com', 80);
    socket.destroy();
    assert.equal(reply, 0);
    assert.equal(fixture.parent.opens.at(-1)?.addresses.length, 16);
    await close();
  });
});

describe('the order of addresses (RFC 8305 section 4)', () => {
  it('takes turns between families, IPv6 first, and says nothing twice', () => {
    const mixed = ['192.0.2.1', '192.0.2.2', '2001:db8::1', '192.0.2.1', '192.0.2.3'];
    assert.deepEqual(interleaveFamilies(mixed), ['2001:db8::1', '192.0.2.1', '192.0.2.2', '192.0.2.3']);
    assert.deepEqual(interleaveFamilies([]), []);
  });
});
