import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { describe, type TestContext, test } from 'node:test';
import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { parseResolverAddress } from '../../guest/dns/upstream/address.ts';
import { directTcp } from '../../guest/dns/upstream/connect.ts';
import { padQuery } from '../../guest/dns/upstream/padding.ts';
import { PipelinedUpstream } from '../../guest/dns/upstream/pipelined.ts';
import { answersQuery, encodeQuery } from '../../guest/dns/upstream/query.ts';
import { DIRECT, resolverFor } from '../../guest/dns/upstream/resolvers.ts';
import { udpUpstream } from '../../guest/dns/upstream/udp.ts';
import { Validator } from '../../guest/dns/validator.ts';
import { addressRdata } from './encode.ts';
import { certificateFor, httpsServer, type RunningServer, streamServer, udpServer } from './servers.ts';
import { NOW } from './signer.ts';
import { TestWorld } from './world.ts';
import { TestZone } from './zone.ts';

const WWW = DomainName.parse('www.example.');
/** Longer than anything here takes; an answer that never comes is aborted by the test. */
const never = (): AbortSignal => new AbortController().signal;

function newWorld(): TestWorld {
  return new TestWorld(
    new TestZone('.'),
    new TestZone('example.').add('www.example.', TYPE.A, addressRdata('192.0.2.1')),
  );
}

async function running(t: TestContext, start: Promise<RunningServer>): Promise<RunningServer> {
  const server = await start;
  t.after(() => server.close());
  return server;
}

/** Of a padded question, the plain one that the world understands. */
function unpadded(query: Buffer): Buffer {
  const { name, type } = { name: WWW, type: TYPE.A };
  const bare = encodeQuery(name, type).length;
  if (query.length <= bare) return query;
  let at = 12;
  while (query.readUInt8(at) !== 0) at += query.readUInt8(at) + 1;
  const plain = Buffer.from(query.subarray(0, at + 5 + 11));
  plain.writeUInt16BE(0, plain.length - 2);
  return plain;
}

describe('UDP', () => {
  test('wrong id, wrong question, a query back and another address are waited over', async (t) => {
    const world = newWorld();
    const server = await running(
      t,
      udpServer(async (query, reply, _socket, port) => {
        const answer = await world.exchange(query);
        const wrongId = Buffer.from(answer);
        wrongId.writeUInt16BE(query.readUInt16BE(0) ^ 1, 0);
        reply(wrongId);
        const wrongQuestion = Buffer.from(answer);
        wrongQuestion.write('xxx', 13);
        reply(wrongQuestion);
        reply(query);
        reply(Buffer.from('short'));
        const stranger = createSocket('udp4');
        const forged = Buffer.from(answer);
        forged.writeUInt8(99, forged.length - 20);
        stranger.send(forged, port, '127.0.0.1', () => {
          stranger.close();
          reply(answer);
        });
      }),
    );
    const query = encodeQuery(WWW, TYPE.A);
    const answer = await udpUpstream({ address: '127.0.0.1', port: server.port }).exchange(query, {
      signal: never(),
    });
    assert.ok(answersQuery(answer, query));
    assert.ok(answer.includes(addressRdata('192.0.2.1')));
  });

  test('strays without end are given up, silence ends with the signal', async (t) => {
    const server = await running(
      t,
      udpServer((query, reply) => {
        const stray = Buffer.from(query);
        for (let count = 0; count < 100; count += 1) reply(stray);
      }),
    );
    const upstream = udpUpstream({ address: '127.0.0.1', port: server.port });
    await assert.rejects(upstream.exchange(encodeQuery(WWW, TYPE.A), { signal: never() }), {
      code: 'ERR_DNS_UPSTREAM',
    });
    const silent = await running(
      t,
      udpServer(() => {}),
    );
    const other = udpUpstream({ address: '127.0.0.1', port: silent.port });
    const signal = AbortSignal.timeout(20);
    await assert.rejects(other.exchange(encodeQuery(WWW, TYPE.A), { signal }), { code: 'ERR_DNS_TIMEOUT' });
  });

  test('ids and ports are not the same twice', async (t) => {
    const ports = new Set<number>();
    const world = newWorld();
    const server = await running(
      t,
      udpServer(async (query, reply, _socket, port) => {
        ports.add(port);
        reply(await world.exchange(query));
      }),
    );
    const upstream = udpUpstream({ address: '127.0.0.1', port: server.port });
    const queries = Array.from({ length: 20 }, () => encodeQuery(WWW, TYPE.A));
    for (const query of queries) await upstream.exchange(query, { signal: never() });
    assert.ok(ports.size > 10, `${ports.size} ports`);
    assert.ok(new Set(queries.map((query) => query.readUInt16BE(0))).size > 10);
  });

  test('what is truncated or bad over UDP is asked over TCP, then of the next resolver', async (t) => {
    const world = newWorld();
    const truncating = await running(
      t,
      udpServer(async (query, reply) => {
        const answer = (await world.exchange(query)).subarray(0, query.length - 11);
        answer.writeUInt16BE(0x8380, 2);
        answer.fill(0, 6, 12);
        reply(answer);
      }),
    );
    const tcp = await running(
      t,
      streamServer((query) => world.exchange(query), undefined, truncating.port),
    );
    const address = parseResolverAddress(`127.0.0.1:${truncating.port}`);
    assert.ok(address);
    const validator = new Validator({
      resolvers: [resolverFor(address, DIRECT)],
      anchors: world.anchors(),
      clock: () => NOW,
    });
    assert.equal((await validator.resolve(WWW, TYPE.A)).state, 'secure');
    assert.equal(tcp.connectionCount(), 1, 'one connection for all questions');

    const liar = newWorld();
    const resolvers = [
      { name: 'liar', ways: [liar] },
      { name: 'honest', ways: [world] },
    ];
    const second = new Validator({ resolvers, anchors: world.anchors(), clock: () => NOW });
    assert.equal((await second.resolve(WWW, TYPE.A)).state, 'secure');
  });
});

describe('streams', () => {
  test('questions are pipelined on one connection and answered in any order', async (t) => {
    const world = newWorld();
    const held: (() => void)[] = [];
    const server = await running(
      t,
      streamServer(async (query) => {
        await new Promise<void>((resolve) => {
          held.unshift(resolve);
          if (held.length === 10) for (const release of held) release();
        });
        return world.exchange(query);
      }),
    );
    const upstream = new PipelinedUpstream('test', directTcp({ address: '127.0.0.1', port: server.port }));
    const queries = Array.from({ length: 10 }, () => encodeQuery(WWW, TYPE.A));
    // Equal ids on one connection are kept apart.
    for (const query of queries) query.writeUInt16BE(7, 0);
    const answers = await Promise.all(queries.map((query) => upstream.exchange(query, { signal: never() })));
    for (const answer of answers) assert.ok(answersQuery(answer, queries[0] ?? Buffer.alloc(0)));
    assert.equal(server.connectionCount(), 1);
  });

  test('a kept connection that the resolver ended is made anew', async (t) => {
    const world = newWorld();
    const first = await running(
      t,
      streamServer((query) => world.exchange(query)),
    );
    const upstream = new PipelinedUpstream('test', directTcp({ address: '127.0.0.1', port: first.port }));
    await upstream.exchange(encodeQuery(WWW, TYPE.A), { signal: never() });
    first.close();
    const second = await running(
      t,
      streamServer((query) => world.exchange(query), undefined, first.port),
    );
    await upstream.exchange(encodeQuery(WWW, TYPE.A), { signal: never() });
    assert.equal(second.connectionCount(), 1);
  });

  test('an answer to another question is no answer', async (t) => {
    const world = newWorld();
    const server = await running(
      t,
      streamServer(async (query) => {
        const answer = await world.exchange(query);
        answer.write('xxx', 13);
        return answer;
      }),
    );
    const upstream = new PipelinedUpstream('test', directTcp({ address: '127.0.0.1', port: server.port }));
    const signal = AbortSignal.timeout(50);
    await assert.rejects(upstream.exchange(encodeQuery(WWW, TYPE.A), { signal }), {
      code: 'ERR_DNS_TIMEOUT',
    });
  });
});

describe('encrypted', () => {
  const certificate = certificateFor('dns.test');

  for (const protocol of ['tls', 'https'] as const) {
    test(`${protocol}: authenticated, kept, padded`, async (t) => {
      const world = newWorld();
      const sizes = new Set<number>();
      const respond = (query: Buffer): Promise<Buffer> => {
        sizes.add(query.length);
        return world.exchange(unpadded(query));
      };
      const server = await running(
        t,
        protocol === 'tls' ? streamServer(respond, certificate) : httpsServer(respond, certificate),
      );
      const address = parseResolverAddress(`${protocol}:127.0.0.1:${server.port}#dns.test`);
      assert.ok(address);
      const resolvers = [resolverFor(address, { connect: DIRECT.connect, ca: certificate.cert })];
      const validator = new Validator({ resolvers, anchors: world.anchors(), clock: () => NOW });
      const verdict = await validator.resolve(WWW, TYPE.A);
      assert.equal(verdict.state, 'secure', verdict.reason);
      assert.equal(server.connectionCount(), 1);
      assert.deepEqual([...sizes], [128]);
    });

    test(`${protocol}: another name, and a certificate nobody vouches for`, async (t) => {
      const world = newWorld();
      const server = await running(
        t,
        protocol === 'tls'
          ? streamServer((query) => world.exchange(query), certificate)
          : httpsServer((query) => world.exchange(query), certificate),
      );
      for (const [name, ca] of [
        ['other.test', certificate.cert],
        ['dns.test', undefined],
      ] as const) {
        const address = parseResolverAddress(`${protocol}:127.0.0.1:${server.port}#${name}`);
        assert.ok(address);
        const { ways } = resolverFor(address, {
          connect: DIRECT.connect,
          ...(ca === undefined ? {} : { ca }),
        });
        const query = encodeQuery(WWW, TYPE.A);
        await assert.rejects(ways[0]?.exchange(query, { signal: never() }) ?? Promise.resolve(), {
          code: 'ERR_DNS_UPSTREAM',
          message: /TLS with/,
        });
      }
      assert.equal(world.asked.length, 0);
    });
  }

  test('padding: questions look alike (RFC 8467)', () => {
    const query = encodeQuery(WWW, TYPE.A);
    const padded = padQuery(query);
    assert.equal(padded.length, 128);
    assert.deepEqual(padded.subarray(0, query.length - 2), query.subarray(0, query.length - 2));
    assert.equal(padded.readUInt16BE(query.length - 2), 128 - query.length);
  });
});

test('addresses of resolvers', () => {
  assert.deepEqual(parseResolverAddress('192.0.2.1'), { address: '192.0.2.1', port: 53, protocol: 'plain' });
  assert.deepEqual(parseResolverAddress('[2001:db8::1]:5353'), {
    address: '2001:db8::1',
    port: 5353,
    protocol: 'plain',
  });
  assert.deepEqual(parseResolverAddress('2001:db8::1'), {
    address: '2001:db8::1',
    port: 53,
    protocol: 'plain',
  });
  assert.deepEqual(parseResolverAddress('tls:192.0.2.1#dns.test'), {
    address: '192.0.2.1',
    port: 853,
    protocol: 'tls',
    serverName: 'dns.test',
  });
  assert.deepEqual(parseResolverAddress('https:192.0.2.1:8443#dns.test/q'), {
    address: '192.0.2.1',
    port: 8443,
    protocol: 'https',
    serverName: 'dns.test',
    path: '/q',
  });
  for (const text of [
    '',
    'dns.test',
    '192.0.2.1:0',
    '192.0.2.1:70000',
    'tls:192.0.2.1',
    '192.0.2.1#x',
    'ftp:192.0.2.1#x',
    'tls:192.0.2.1#x/y',
  ]) {
    assert.equal(parseResolverAddress(text), undefined, text);
  }
});
