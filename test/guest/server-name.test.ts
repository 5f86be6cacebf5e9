import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { connect as connectTls } from 'node:tls';
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
      config: 'negativeTrustAnchors: [example.com]',
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
    const { refusals } = fixture.agent.report();
    assert.deepEqual(
      [refusals['sni-other-name'], refusals['sni-missing'], refusals['sni-not-tls']],
      [1, 1, 1],
    );
  });

  it('refuses plain HTTP through the HTTP proxy', async () => {
    const socket = await connectTcp(fixture.httpPort, '::1');
    socket.write('GET http://api.example.com/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    assert.match((await readAll(socket)).bytes.toString(), /^HTTP\/1\.1 403 /);
    assert.equal(received.length, 0);
  });
});
