import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import ipaddr from 'ipaddr.js';
import { encodeProxyV2 } from '../../guest/inbound/proxy-v2.ts';
import { parseAbsoluteUri, parseAuthority } from '../../guest/proxy/authority.ts';
import { endToEndHeaders } from '../../guest/proxy/http-headers.ts';
import { parseLoopback } from '../../guest/proxy/loopback.ts';
import { decodeSocksDatagram } from '../../guest/proxy/socks5-datagram.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import { CAPABILITIES } from '../../shared/wire/control.ts';
import { encodeClose, encodeDatagram, encodeUndelivered } from '../../shared/wire/datagram.ts';
import { encodeStreamHeader } from '../../shared/wire/header.ts';
import { encodeInboundOpen } from '../../shared/wire/open.ts';
import { encodeReply } from '../../shared/wire/reply.ts';
import { connectTcp, listenTcp, readAll, startFixture } from '../guest/agent-fixture.ts';
import { socksConnect, socksRequest } from '../guest/socks-client.ts';
import { converse } from '../guest/socks-conversation.ts';
import { fuzzDecoder, fuzzRounds, fuzzSeed, mutate, SeededRandom } from './fuzz.ts';

const ROUNDS = fuzzRounds(5_000);

/** Cut into pieces of random length. */
function cut(bytes: Buffer, random: SeededRandom): Buffer[] {
  const pieces: Buffer[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    const length = 1 + random.below(9);
    pieces.push(bytes.subarray(offset, offset + length));
    offset += length;
  }
  return pieces;
}

/** The whole handshake read in one go, the way RFC 1928 writes it down. */
function naiveSocks(bytes: Buffer): string {
  const count = bytes[1] ?? 0;
  if (bytes.length > 0 && bytes[0] !== 5) return 'close';
  if (bytes.length < 2 + count || bytes.length < 2) return 'more';
  if (!bytes.subarray(2, 2 + count).includes(0)) return 'close';
  const request = bytes.subarray(2 + count);
  if (request.length === 0) return 'more';
  if (request[0] !== 5) return 'close';
  if (request.length < 4) return 'more';
  if (request[2] !== 0 || ![1, 2, 3].includes(request[1] ?? 0)) return 'close';
  if (![1, 3, 4].includes(request[3] ?? 0)) return 'close';
  if (request[3] === 3 && request.length < 5) return 'more';
  const length = { 1: 4, 3: 1 + (request[4] ?? 0), 4: 16 }[request[3] ?? 0] ?? 0;
  return request.length < 4 + length + 2 ? 'more' : `request ${request.readUInt16BE(4 + length)}`;
}

test('SOCKS5: pieces make no difference, and a naive twin agrees', () => {
  const corpus = ['192.0.2.7', '2001:db8::7', 'example.com', 'a'.repeat(255)].map((host) =>
    socksRequest(host, 443),
  );
  corpus.push(
    Buffer.from('0502000105010001c0000207005047455420', 'hex'),
    Buffer.from('GET / HTTP/1.1\r\n\r\n'),
  );
  fuzzDecoder('socks5', corpus, ROUNDS, (bytes, random) => {
    const whole = converse([bytes]);
    assert.deepEqual(converse(cut(bytes, random)), whole);
    const { last } = whole;
    assert.equal(last.kind === 'request' ? `request ${last.request.port}` : last.kind, naiveSocks(bytes));
    if (last.kind === 'request') assert.ok(last.request.host.length <= 255);
  });
});

/** RFC 1928 section 7, field by field. */
function naiveDatagram(bytes: Buffer): string {
  const [first, second, fragment, type, nameLength = 0] = bytes;
  if (first !== 0 || second !== 0 || fragment !== 0) return 'none';
  const address = { 1: 4, 3: nameLength, 4: 16 }[type ?? 0] ?? 0;
  const rest = bytes.subarray((type === 3 ? 5 : 4) + address);
  if (address === 0 || rest.length < 2 || rest.readUInt16BE(0) === 0) return 'none';
  return `${rest.readUInt16BE(0)} ${rest.subarray(2).toString('hex')}`;
}

test('SOCKS5 datagrams: a naive twin agrees on what is one', () => {
  const corpus = ['192.0.2.7', '2001:db8::7', 'example.com', 'a'.repeat(255)].map((host) =>
    Buffer.concat([Buffer.alloc(3), socksRequest(host, 53).subarray(6), Buffer.from('payload')]),
  );
  fuzzDecoder('socks5 datagram', corpus, ROUNDS, (bytes) => {
    const read = decodeSocksDatagram(bytes);
    const text = read === undefined ? 'none' : `${read.port} ${read.payload.toString('hex')}`;
    assert.equal(text, naiveDatagram(bytes));
    if (read !== undefined) assert.ok(read.host.length >= 1 && read.host.length <= 255);
  });
});

test('request targets and listener addresses: what is accepted is one host and one port', () => {
  const corpus = [
    'http://example.com:80/a?b',
    'http://[2001:db8::7]/',
    'example.com:443',
    '[::1]:8080',
    '127.0.0.1:1080',
  ];
  const buffers = corpus.map((text) => Buffer.from(text));
  fuzzDecoder('targets', buffers, ROUNDS, (bytes) => {
    const text = bytes.toString('latin1');
    for (const authority of [parseAuthority(text), parseAbsoluteUri(text, 'GET')]) {
      if (authority === undefined) continue;
      assert.match(authority.host, /^[^\s/?#@[\]\\]+$/);
      assert.ok(authority.port >= 1 && authority.port <= 65_535);
    }
    const uri = parseAbsoluteUri(text, 'GET');
    if (uri !== undefined) assert.match(uri.path, /^\/[^\s#]*$/);
    const loopback = parseLoopback(text);
    if (loopback !== undefined) assert.equal(ipaddr.parse(loopback.host).range(), 'loopback');
  });
});

test('headers: whatever Connection names, framing and Host stay', () => {
  const random = new SeededRandom(fuzzSeed());
  const names = [
    'Host',
    'Content-Length',
    'X-A',
    'TE',
    'Upgrade',
    'Keep-Alive',
    'Connection',
    'Proxy-Authorization',
  ];
  for (let round = 0; round < ROUNDS; round += 1) {
    const raw = Array.from({ length: random.below(8) }, () => random.pick(names)).flatMap((name) => [
      name,
      name === 'Connection' ? `${random.pick(names)}, ${random.pick(names)}` : 'v',
    ]);
    const kept = endToEndHeaders(raw).filter((_, index) => index % 2 === 0);
    const given = raw.filter((_, index) => index % 2 === 0);
    for (const name of ['Host', 'Content-Length']) {
      assert.equal(
        kept.filter((found) => found === name).length,
        given.filter((found) => found === name).length,
      );
    }
    for (const name of ['TE', 'Upgrade', 'Keep-Alive', 'Connection', 'Proxy-Authorization'])
      assert.ok(!kept.includes(name));
  }
});

test('PROXY v2: a naive reader reads what was written', () => {
  const random = new SeededRandom(fuzzSeed());
  for (let round = 0; round < ROUNDS; round += 1) {
    const endpoint = () => ({
      address: ipaddr.fromByteArray([...random.bytes(random.pick([4, 16]))]).toString(),
      port: random.below(65_536),
    });
    const client = endpoint();
    const local = endpoint();
    const bytes = encodeProxyV2(client, local);
    const size = bytes[13] === 0x11 ? 4 : 16;
    assert.equal(bytes.readUInt16BE(14), 2 * size + 4);
    assert.equal(bytes.length, 16 + 2 * size + 4);
    const at = (offset: number) =>
      ipaddr.process(ipaddr.fromByteArray([...bytes.subarray(offset, offset + size)]).toString());
    assert.equal(at(16).toString(), ipaddr.process(client.address).toString());
    assert.equal(at(16 + size).toString(), ipaddr.process(local.address).toString());
    assert.deepEqual(
      [bytes.readUInt16BE(16 + 2 * size), bytes.readUInt16BE(18 + 2 * size)],
      [client.port, local.port],
    );
  }
});

test('the agent’s listeners live through mutated streams, and keep nothing', async (t) => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  t.diagnostic(`SEED=${seed}`);
  const workload = await listenTcp((socket) => socket.pipe(socket));
  const policy = `egress: {allow: [{ip: 192.0.2.7, ports: 80}]}\ningress: [{port: 80, to: "127.0.0.1:${workload.port}"}]`;
  const fixture = await startFixture({ policy });
  fixture.parent.route('192.0.2.7', 80, workload.server);
  const key = fixture.parent.hellos[0]?.key ?? Buffer.alloc(32);
  const open = {
    servicePort: 80,
    client: { address: '203.0.113.7', port: 1 },
    local: { address: '198.51.100.1', port: 80 },
  };
  const inbound = [encodeStreamHeader('inbound', 1, encodeInboundOpen(open), key)];
  const http = [
    'CONNECT 192.0.2.7:80 HTTP/1.1\r\nHost: x\r\n\r\nabc',
    'GET http://192.0.2.7/ HTTP/1.1\r\nHost: x\r\n\r\n',
  ];
  for (let round = 0; round < fuzzRounds(60); round += 1) {
    const streams = [
      await connectStream({ kind: 'unix', path: fixture.inboundPath }),
      await connectTcp(fixture.socksPort),
      await connectTcp(fixture.httpPort, '::1'),
    ];
    const inputs = [inbound, [socksRequest('192.0.2.7', 80)], http.map((text) => Buffer.from(text))];
    await Promise.all(
      streams.map(async (stream, index) => {
        stream.on('error', () => {});
        stream.end(mutate(random, inputs[index] ?? []));
        stream.resume();
        if (!stream.closed) await once(stream, 'close');
      }),
    );
  }
  while (fixture.agent.report().flows.count > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  const { stream, status } = await fixture.parent.openInbound(fixture.inboundPath, 80, { flowId: 9_999 });
  assert.equal(status, 'ok');
  stream.end('alive');
  assert.equal((await readAll(stream)).bytes.toString(), 'alive');
  await fixture.close();
  workload.close();
});

test('a parent that answers associations in mutated frames ends them at most', async (t) => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  t.diagnostic(`SEED=${seed}`);
  const remote = { address: '192.0.2.7', port: 53 };
  const corpus = [
    Buffer.concat([encodeReply('ok'), encodeDatagram(remote, Buffer.from('payload'))]),
    Buffer.concat([encodeReply('ok'), encodeUndelivered(remote, 'denied'), encodeClose('timeout')]),
    Buffer.concat([encodeReply('ok'), encodeDatagram({ address: '::1', port: 1 }, Buffer.alloc(300))]),
    encodeReply('limit'),
  ];
  const fixture = await startFixture({
    policy: 'egress: {allow: [{ip: 192.0.2.7, ports: 53, protocol: udp}, {ip: 192.0.2.7, ports: 80}]}',
    prepare: (parent) => {
      parent.capabilities = CAPABILITIES.tcp | CAPABILITIES.udp;
      parent.onAssociation = (stream) => stream.end(mutate(random, corpus));
    },
  });
  for (let round = 0; round < fuzzRounds(100); round += 1) {
    const client = await connectTcp(fixture.socksPort);
    client.on('error', () => {});
    client.write(socksRequest('0.0.0.0', 0, 3));
    // By then the parent has said what it says; an association that came about ends with its client.
    const timer = setTimeout(() => client.end(), round % 8);
    await readAll(client);
    clearTimeout(timer);
  }
  while (fixture.agent.report().flows.count > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  const echo = await listenTcp((socket) => socket.pipe(socket));
  fixture.parent.route('192.0.2.7', 80, echo.server);
  assert.equal((await socksConnect(fixture.socksPort, '192.0.2.7', 80)).reply, 0);
  await fixture.close();
  echo.close();
});

test('an origin that answers in mutated HTTP harms nothing but its own answer', async (t) => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  t.diagnostic(`SEED=${seed}`);
  const corpus = [
    'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello',
    'HTTP/1.1 099 \x01\x7f\r\nContent-Length: 0\r\n\r\n',
    'HTTP/1.1 999 \u00e9\x00\r\n\r\nrest',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n',
    'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.0 200 OK\r\n\r\nbody',
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nbytes',
    'HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n',
    'HTTP/1.1 204 No Content\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\nxxxxxxxxx',
  ].map((text) => Buffer.from(text, 'latin1'));
  let answers = 0;
  const origin = await listenTcp((socket) => {
    socket.once('data', () => {
      // Each of the corpus as it is first.
      socket.end(corpus[answers] ?? mutate(random, corpus));
      socket.resume();
      answers += 1;
    });
  });
  const fixture = await startFixture({ policy: 'egress: {allow: [{ip: 192.0.2.7, ports: 80}]}' });
  fixture.parent.route('192.0.2.7', 80, origin.server);
  for (let round = 0; round < fuzzRounds(150); round += 1) {
    const socket = await connectTcp(fixture.httpPort, '::1');
    socket.on('error', () => {});
    socket.end('GET http://192.0.2.7/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    const { bytes } = await readAll(socket);
    assert.match(bytes.toString('latin1'), /^(HTTP\/1\.1 [1-9]\d\d |$)/);
    socket.destroy();
  }
  while (fixture.agent.report().flows.count > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  await fixture.close();
  origin.close();
});
