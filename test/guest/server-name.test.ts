import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { readServerName } from '../../guest/flow/server-name.ts';
import { connectTcp, type Fixture, listenTcp, readAll, startFixture } from './agent-fixture.ts';
import { socksConnect } from './socks-client.ts';

/** The first bytes of a real TLS client. */
async function clientHello(options: object): Promise<Buffer> {
  const sink = await listenTcp(() => {});
  const accepted = once(sink.server, 'connection');
  const client = connectTls({ port: sink.port, host: '127.0.0.1', ...options });
  client.on('error', () => {});
  const [socket] = await accepted;
  const [bytes] = await once(socket, 'data');
  client.destroy();
  sink.close();
  return bytes;
}

/** The same handshake message in records of `size` bytes (RFC 8446 section 5.1 allows it). */
function refragment(hello: Buffer, size: number): Buffer {
  const message = hello.subarray(5);
  const records: Buffer[] = [];
  for (let offset = 0; offset < message.length; offset += size) {
    const piece = message.subarray(offset, offset + size);
    const header = Buffer.from([22, 3, 1, 0, 0]);
    header.writeUInt16BE(piece.length, 3);
    records.push(header, piece);
  }
  return Buffer.concat(records);
}

describe('the server name of a ClientHello', () => {
  for (const options of [
    { servername: 'api.example.com' },
    { servername: 'api.example.com', maxVersion: 'TLSv1.2', ALPNProtocols: ['h2', 'http/1.1'] },
  ]) {
    it(`is read from ${JSON.stringify(options)}: whole, cut anywhere, in records of any size`, async () => {
      const hello = await clientHello(options);
      const expected = { kind: 'hello', name: 'api.example.com' };
      assert.deepEqual(readServerName(hello), expected);
      for (let cut = 0; cut < hello.length; cut += 1) {
        assert.deepEqual(readServerName(hello.subarray(0, cut)), { kind: 'more' }, `cut at ${cut}`);
      }
      for (const size of [1, 2, 3, 7, 64])
        assert.deepEqual(readServerName(refragment(hello, size)), expected);
      assert.deepEqual(readServerName(Buffer.concat([hello, Buffer.from('0-RTT')])), expected);
    });
  }

  it('is undefined where the client names none', async () => {
    assert.deepEqual(readServerName(await clientHello({})), { kind: 'hello', name: undefined });
  });

  it('is not taken from a hello that says two', async () => {
    const hello = await clientHello({ servername: 'api.example.com' });
    const at = hello.indexOf('api.example.com') - 9;
    const extension = hello.subarray(at, at + 9 + 'api.example.com'.length);
    assert.equal(extension.readUInt16BE(0), 0);
    const twice = Buffer.concat([hello, extension]);
    twice.writeUInt16BE(twice.length - 5, 3);
    twice.writeUIntBE(twice.length - 9, 6, 3);
    // Behind version, random, session (32 bytes), suites and compression.
    const suites = 5 + 4 + 2 + 32 + 1 + twice.readUInt8(43);
    const extensions = suites + 2 + twice.readUInt16BE(suites) + 2;
    twice.writeUInt16BE(twice.length - extensions - 2, extensions);
    assert.deepEqual(readServerName(twice), { kind: 'not-tls' });
  });

  it('is not looked for in other protocols, or without bound', () => {
    for (const text of ['GET / HTTP/1.1\r\n', 'SSH-2.0-x\r\n', '\x15\x03\x01\x00\x02']) {
      assert.deepEqual(readServerName(Buffer.from(text, 'latin1')), { kind: 'not-tls' });
    }
    const endless = refragment(
      Buffer.concat([Buffer.alloc(5), Buffer.from([1, 0xff, 0xff, 0xff]), Buffer.alloc(9)]),
      4,
    );
    assert.deepEqual(readServerName(endless), { kind: 'not-tls' });
    assert.deepEqual(readServerName(Buffer.from([22, 3, 1, 0, 0])), { kind: 'not-tls' });
  });
});

describe('a rule with tls: sni', () => {
  let fixture: Fixture;
  let dns: Awaited<ReturnType<typeof listenTcp>>;
  let sink: Awaited<ReturnType<typeof listenTcp>>;
  const received: Buffer[] = [];

  before(async () => {
    const { answerFor } = await import('./dns-server.ts');
    dns = await listenTcp(answerFor({ 'api.example.com': { A: ['192.0.2.7'] } }));
    sink = await listenTcp((socket) => socket.on('data', (piece) => received.push(piece)));
    fixture = await startFixture({
      policy: 'egress: {allow: [{fqdn: api.example.com, ports: [80, 443], tls: sni}]}',
      resolvers: ['192.0.2.53'],
    });
    fixture.parent.route('192.0.2.53', 53, dns.server);
    for (const port of [80, 443]) fixture.parent.route('192.0.2.7', port, sink.server);
  });
  after(async () => {
    await fixture.close();
    dns.close();
    sink.close();
  });

  it('lets the right name through, unchanged', async () => {
    const hello = await clientHello({ servername: 'api.example.com' });
    const { socket, reply } = await socksConnect(fixture.socksPort, 'API.example.com.', 443);
    assert.equal(reply, 0);
    for (const byte of hello) socket.write(Buffer.from([byte]));
    while (Buffer.concat(received).length < hello.length)
      await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(Buffer.concat(received), hello);
    socket.destroy();
  });

  it('resets the flow for another name, no name and no TLS, and passes nothing on', async () => {
    received.length = 0;
    const wrong = [
      await clientHello({ servername: 'evil.example.com' }),
      await clientHello({}),
      Buffer.from('GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n'),
    ];
    for (const bytes of wrong) {
      const { socket, reply } = await socksConnect(fixture.socksPort, 'api.example.com', 443);
      assert.equal(reply, 0);
      socket.write(bytes);
      assert.equal((await readAll(socket)).error?.code, 'ECONNRESET');
    }
    assert.equal(received.length, 0);
    assert.equal(fixture.agent.report().refusals['server-name-mismatch'], 3);
  });

  it('refuses plain HTTP through the HTTP proxy', async () => {
    const socket = await connectTcp(fixture.httpPort, '::1');
    socket.write('GET http://api.example.com/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    assert.match((await readAll(socket)).bytes.toString(), /^HTTP\/1\.1 403 /);
    assert.equal(received.length, 0);
  });
});
