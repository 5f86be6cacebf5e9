import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { TYPE } from '../../guest/dns/types.ts';
import { certificateFor } from '../dns/servers.ts';
import { NOW } from '../dns/signer.ts';
import { connectTcp, readAll } from './agent-fixture.ts';
import { newWorld, RESOLVER, type SignedFixture, startSigned } from './signed-world.ts';
import { socksConnect } from './socks-client.ts';

const POLICY = `egress:
  allow:
    - { name: names, fqdn: ["*.example", plain.test], ports: 80 }
    - { name: strict, fqdn: [www.example, plain.test, across.example], ports: 81, dnssec: require }
    - { name: lax, fqdn: ["*.example"], ports: 8080, dnssec: "off" }
    - { name: inside, cidr: 10.1.0.0/16, ports: 80 }
  deny: [{ ip: 192.0.2.99 }]`;

const ALLOWED = 0;
const REFUSED = 2;
const UNREACHABLE = 4;

async function connect({ socksPort }: SignedFixture, host: string, port = 80): Promise<number> {
  const { socket, reply } = await socksConnect(socksPort, host, port);
  socket.destroy();
  return reply;
}

describe('names given to the proxies', () => {
  let fixture: SignedFixture;
  before(async () => {
    fixture = await startSigned({ policy: POLICY });
  });
  after(() => fixture.close());
  const dial = (host: string, port?: number) => connect(fixture, host, port);

  it('are resolved in the guest, both families, and offered IPv6 first, marked as they validated', async () => {
    assert.equal(await dial('www.example'), ALLOWED);
    assert.deepEqual(fixture.dialled(), ['2001:db8::7 192.0.2.7 80']);
    const opened = fixture.lines.find(({ event, name }) => event === 'flow.opened' && name === 'www.example');
    assert.equal(opened?.['dnssec'], 'secure');
    assert.equal(await dial('plain.test'), ALLOWED);
    const plain = fixture.lines.find(({ event, name }) => event === 'flow.opened' && name === 'plain.test');
    assert.equal(plain?.['dnssec'], 'insecure');
  });

  it('are the same in any spelling, cached, and asked for over one connection', async () => {
    const { length } = fixture.world.asked;
    for (const host of ['WWW.Example', 'www.example.', 'www.EXAMPLE.'])
      assert.equal(await dial(host), ALLOWED);
    assert.equal(fixture.world.asked.length, length);
    assert.equal(fixture.dns.connectionCount(), 1);
    assert.equal(fixture.parent.opens.filter(({ port }) => port === 53).length, 1);
  });

  it('are followed through CNAMEs, whose targets need no rule; the weakest link decides', async () => {
    assert.equal(await dial('alias.example'), ALLOWED);
    assert.equal(await dial('across.example'), ALLOWED);
    assert.equal(await dial('across.example', 81), REFUSED);
    assert.deepEqual(fixture.dialled().at(-1), '192.0.2.9 80');
  });

  it('under dnssec: require must be signed', async () => {
    assert.equal(await dial('www.example', 81), ALLOWED);
    assert.equal(await dial('plain.test', 81), REFUSED);
    const refused = fixture.lines.find(
      ({ event, name, port }) => event === 'flow.refused' && name === 'plain.test' && port === 81,
    );
    assert.equal(refused?.['reason'], 'dnssec-insecure');
    assert.equal(refused?.['dnssec'], 'insecure');
  });

  it('off the list leave no trace outside', async () => {
    const { length } = fixture.world.asked;
    const opens = fixture.parent.opens.length;
    for (const host of ['a.b.example', 'example', 'secret-data.evil.org', 'x.test', 'www.example.evil.org'])
      assert.equal(await dial(host), REFUSED, host);
    assert.equal(await dial('www.example', 443), REFUSED);
    assert.equal(fixture.world.asked.length, length);
    assert.equal(fixture.parent.opens.length, opens);
  });

  it('that lead inside are refused, whatever the family, unless an address rule names that', async () => {
    const count = fixture.dialled().length;
    for (const host of ['inside.example', 'mapped.example', 'denied.example'])
      assert.equal(await dial(host), REFUSED, host);
    assert.equal(fixture.dialled().length, count);
    assert.equal(await dial('mixed.example'), ALLOWED);
    assert.equal(fixture.dialled().at(-1), '192.0.2.7 80');
    assert.equal(await dial('private.example'), ALLOWED);
    assert.equal(fixture.dialled().at(-1), '10.1.2.3 80');
  });

  it('without an address are host unreachable', async () => {
    assert.equal(await dial('nothing.example'), UNREACHABLE);
    assert.ok((fixture.agent.report().refusals['ERR_RESOLVE_NOT_FOUND'] ?? 0) >= 1);
  });

  it('lead to no more addresses than an OPEN carries', async () => {
    await dial('many.example');
    assert.equal(fixture.dialled().at(-1)?.split(' ').length, 17);
  });

  it('lease their addresses: a client that resolved by itself is judged by them', async () => {
    assert.equal(await dial('192.0.2.7'), ALLOWED);
    assert.equal(await dial('192.0.2.7', 443), REFUSED);
    assert.equal(await dial('192.0.2.254'), REFUSED);
    // Only an address rule's own ports count for what no name was leased to.
    assert.equal(await dial('127.0.0.1'), REFUSED);
  });
});

describe('a flow that lives', () => {
  it('outlives its lease, which then allows nothing new', async (t) => {
    let now = NOW;
    const config = 'leases: { floorSeconds: 0, graceSeconds: 0 }';
    const world = newWorld();
    world.zone('www.example.').remove('www.example.', TYPE.AAAA);
    world.tamper = (message) => {
      for (const record of message.answer) Object.assign(record, { ttlSeconds: 1 });
    };
    const fixture = await startSigned({ policy: POLICY, world, config, clock: () => now });
    t.after(() => fixture.close());
    const { socket, reply } = await socksConnect(fixture.socksPort, 'www.example', 80);
    assert.equal(reply, ALLOWED);
    assert.equal(await connect(fixture, '192.0.2.7'), ALLOWED);
    now += 10;
    while ((fixture.agent.report().names?.leases.count ?? 0) > 0)
      await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(await connect(fixture, '192.0.2.7'), REFUSED);
    socket.write('still here');
    const [piece] = await once(socket, 'data');
    assert.equal(String(piece), 'still here');
    socket.destroy();
  });
});

/** What a parent, or a resolver, does to answers, and what is said of it. */
const LIES: readonly [name: string, tamper: ReturnType<typeof newWorld>['tamper'], code: string][] = [
  [
    'strips every signature',
    (message) => {
      message.answer = message.answer.filter(({ type }) => type !== TYPE.RRSIG);
      message.authority = [];
    },
    'ERR_DNS_STRIPPED',
  ],
  [
    'forges an address',
    (message, name, type) => {
      if (type !== TYPE.A || !name.toString().startsWith('www')) return;
      for (const record of message.answer) if (record.type === TYPE.A) record.rdata.writeUInt8(66, 3);
    },
    'ERR_DNS_BOGUS',
  ],
  [
    'flips a bit of a signature',
    (message, _name, type) => {
      if (type !== TYPE.A && type !== TYPE.AAAA) return;
      for (const { type: of, rdata } of message.answer)
        if (of === TYPE.RRSIG) rdata.writeUInt8(rdata.readUInt8(rdata.length - 1) ^ 1, rdata.length - 1);
    },
    'ERR_DNS_BOGUS',
  ],
  [
    'denies what exists',
    (message, _name, type) => {
      if (type !== TYPE.A && type !== TYPE.AAAA) return;
      Object.assign(message, { rcode: 3, answer: [], authority: [] });
    },
    'ERR_DNS_STRIPPED',
  ],
];

describe('a parent that lies about names', () => {
  for (const [name, tamper, code] of LIES) {
    it(`${name}: refused under every setting, with the reason`, async (t) => {
      const world = newWorld();
      // One family is spoiled, and there is no other to fall back on.
      world.zone('www.example.').remove('www.example.', TYPE.AAAA);
      world.tamper = (message, asked, type) => {
        // The records of the zone are spoiled in a copy.
        message.answer = message.answer.map((record) => ({ ...record, rdata: Buffer.from(record.rdata) }));
        return tamper(message, asked, type);
      };
      const fixture = await startSigned({ policy: POLICY, world });
      t.after(() => fixture.close());
      for (const port of [80, 81, 8080]) assert.equal(await connect(fixture, 'www.example', port), REFUSED);
      assert.deepEqual(fixture.dialled(), []);
      const refused = fixture.lines.filter(({ event }) => event === 'flow.refused');
      assert.equal(refused.length, 3);
      for (const line of refused) {
        assert.deepEqual([line['reason'], line['dnssec']], ['dnssec-bogus', 'bogus']);
        assert.equal(line['code'], code);
      }
      assert.equal(fixture.agent.report().names?.leases.count, 0);
    });
  }

  const silences: [name: string, answer: (message: { flags: number; rcode: number }) => unknown][] = [
    ['truncates', (message) => Object.assign(message, { flags: 0x8390, answer: [] })],
    ['answers SERVFAIL', (message) => Object.assign(message, { rcode: 2, answer: [], authority: [] })],
    ['sends garbage', () => Buffer.alloc(600, 0xff)],
    ['sends a header alone', () => Buffer.alloc(12)],
  ];
  for (const [name, answer] of silences) {
    it(`${name}: host unreachable, and nothing is dialled`, async (t) => {
      const world = newWorld();
      world.tamper = (message) => {
        const octets = answer(message);
        return octets instanceof Buffer ? octets : undefined;
      };
      const fixture = await startSigned({ policy: POLICY, world });
      t.after(() => fixture.close());
      assert.equal(await connect(fixture, 'www.example'), UNREACHABLE);
      assert.deepEqual(fixture.dialled(), []);
    });
  }

  it('an HTTP client is told what was wrong', async (t) => {
    const fixture = await startSigned({ policy: POLICY, clock: () => NOW + 365 * 86_400 });
    t.after(() => fixture.close());
    const socket = await connectTcp(fixture.httpPort, '::1');
    socket.end('CONNECT www.example:80 HTTP/1.1\r\nHost: www.example\r\n\r\n');
    const { bytes } = await readAll(socket);
    assert.match(bytes.toString(), /^HTTP\/1\.1 403 .*details="dnssec-bogus"/s);
    assert.match(bytes.toString(), /expired at .*; the clock says .*is this clock right\?/);
  });
});

describe('what is wrong with the guest itself has its own message', () => {
  const cases: [name: string, options: object, code: string, message: RegExp][] = [
    ['a clock that is late', { clock: () => NOW + 365 * 86_400 }, 'ERR_DNS_EXPIRED', /is this clock right/],
    ['a clock that is early', { clock: () => 86_400 }, 'ERR_DNS_NOT_YET_VALID', /is this clock right/],
    [
      'an anchor that does not match',
      { anchor: `. IN DS 20326 13 2 ${'ab'.repeat(32)}\n` },
      'ERR_DNS_ANCHOR',
      /trust anchor/,
    ],
  ];
  for (const [name, options, code, message] of cases) {
    it(name, async (t) => {
      const fixture = await startSigned({ policy: POLICY, ...options });
      t.after(() => fixture.close());
      assert.equal(await connect(fixture, 'www.example'), REFUSED);
      const refused = fixture.lines.find(({ event }) => event === 'flow.refused');
      assert.equal(refused?.['code'], code);
      assert.match(String(refused?.['msg']), message);
    });
  }
});

describe('resolvers', () => {
  it('are passed over for the next one where they are silent', async (t) => {
    const fixture = await startSigned({ policy: POLICY, resolvers: ['192.0.2.54', RESOLVER] });
    t.after(() => fixture.close());
    assert.equal(await connect(fixture, 'www.example'), ALLOWED);
    assert.equal(fixture.dialled()[0], '192.0.2.54 53');
  });

  for (const [kind, resolver] of [
    ['tls', `tls:${RESOLVER}#dns.resolver.test`],
    ['https', `https:${RESOLVER}#dns.resolver.test/dns-query`],
  ] as const) {
    it(`over ${kind}: the parent sees neither names nor addresses, and cannot stand in for it`, async (t) => {
      const certificate = certificateFor('dns.resolver.test');
      const serve = { kind, certificate };
      const fixture = await startSigned({ policy: POLICY, resolvers: [resolver], serve });
      t.after(() => fixture.close());
      assert.equal(await connect(fixture, 'plain.test'), ALLOWED);
      assert.equal(await connect(fixture, 'www.example', 81), ALLOWED);
      assert.equal(fixture.dns.connectionCount(), 1);
      const other = { kind, certificate: certificateFor('evil.resolver.test') };
      const wrong = await startSigned({ policy: POLICY, resolvers: [resolver], serve: other });
      t.after(() => wrong.close());
      assert.equal(await connect(wrong, 'plain.test'), UNREACHABLE);
      assert.deepEqual(wrong.world.asked, []);
    });
  }

  it('without a session: the application hears of the network, not of the name', async (t) => {
    const fixture = await startSigned({ policy: POLICY });
    t.after(() => fixture.close());
    await fixture.parent.close();
    while (fixture.agent.session.current !== undefined)
      await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(await connect(fixture, 'www.example'), 3);
  });
});
