import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type Server } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { connectTcp, type Fixture, listenTcp, readAll, startFixture } from './agent-fixture.ts';

const POLICY = 'egress: {allow: [{ip: [192.0.2.7, 192.0.2.8], ports: [80, 81, 443]}]}';

let fixture: Fixture;
let origin: Server;
let other: Server;
let echo: Awaited<ReturnType<typeof listenTcp>>;
const seen: { url: string | undefined; headers: string[]; body: string }[] = [];

before(async () => {
  fixture = await startFixture({ policy: POLICY });
  origin = createServer((incoming, response) => void serveOrigin(incoming, response));
  other = createServer((_incoming, response) => response.end('the other one'));
  for (const server of [origin, other]) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  }
  echo = await listenTcp((socket) => socket.pipe(socket));
  fixture.parent.route('192.0.2.7', 80, origin);
  fixture.parent.route('192.0.2.8', 80, other);
  fixture.parent.route('192.0.2.7', 443, echo.server);
});
after(async () => {
  await fixture.close();
  origin.close();
  origin.closeAllConnections();
  other.close();
  other.closeAllConnections();
  echo.close();
});

async function serveOrigin(
  incoming: IncomingMessage,
  response: import('node:http').ServerResponse,
): Promise<void> {
  if (incoming.url === '/hash') {
    const hash = createHash('sha256');
    for await (const piece of incoming) hash.update(piece);
    response.end(hash.digest('hex'));
    return;
  }
  if (incoming.url === '/half') {
    response.writeHead(200, { 'Content-Length': '100' });
    response.write('not all of it');
    setTimeout(() => response.destroy(), 20);
    return;
  }
  const pieces: Buffer[] = [];
  for await (const piece of incoming) pieces.push(piece);
  seen.push({ url: incoming.url, headers: incoming.rawHeaders, body: Buffer.concat(pieces).toString() });
  response.setHeader('Set-Cookie', ['a=1', 'b=2']);
  response.setHeader('Keep-Alive', 'timeout=99');
  response.setHeader('X-Gone', 'yes');
  response.setHeader('Connection', 'X-Gone');
  response.end(`answer to ${incoming.url}`);
}

/** Sends raw bytes to the proxy and collects all that comes back. */
async function raw(text: string): Promise<string> {
  const socket = await connectTcp(fixture.httpPort, '::1');
  socket.on('error', () => {});
  socket.end(text);
  return (await readAll(socket)).bytes.toString('latin1');
}

describe('http:// requests in absolute form', () => {
  it('reach the origin with the Host of the URI and without hop-by-hop headers', async () => {
    const answer = await raw(
      'GET http://192.0.2.7/a/../b%2f?q=1 HTTP/1.1\r\nHost: evil.example\r\nAccept: x\r\nConnection: close, X-Mine\r\n' +
        'X-Mine: 1\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\nUpgrade: h2c\r\n\r\n',
    );
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(answer, /answer to \/a\/\.\.\/b%2f\?q=1$/);
    assert.match(answer, /Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n/);
    assert.match(answer, /Via: 1\.1 postern\r\n/);
    assert.doesNotMatch(answer, /X-Gone|timeout=99/);
    const headers = seen.at(-1)?.headers;
    assert.deepEqual(headers, [
      'Host',
      '192.0.2.7',
      'Accept',
      'x',
      'Via',
      '1.1 postern',
      'Connection',
      'close',
    ]);
  });

  it('keep one client connection over several requests to different origins', async () => {
    const answer = await raw(
      ['192.0.2.7', '192.0.2.8', '192.0.2.7']
        .map((host, index) => `GET http://${host}/${index} HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
        .join(''),
    );
    assert.equal(answer.match(/HTTP\/1\.1 200 OK/g)?.length, 3);
    assert.match(answer, /answer to \/0[\s\S]*the other one[\s\S]*answer to \/2$/);
  });

  it('carry bodies with a length and chunked ones', async () => {
    const body = randomBytes(3_000_000);
    const expected = createHash('sha256').update(body).digest('hex');
    for (const headers of [{ 'Content-Length': String(body.length) }, { 'Transfer-Encoding': 'chunked' }]) {
      const outgoing = request({
        host: '::1',
        port: fixture.httpPort,
        method: 'PUT',
        path: 'http://192.0.2.7/hash',
        headers: { Host: '192.0.2.7', ...headers },
      });
      outgoing.end(body);
      const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage];
      let text = '';
      for await (const piece of incoming) text += String(piece);
      assert.equal(text, expected);
    }
  });

  it('pass 100-continue through', async () => {
    const outgoing = request({
      host: '::1',
      port: fixture.httpPort,
      method: 'POST',
      path: 'http://192.0.2.7/',
      headers: { Host: '192.0.2.7', Expect: '100-continue', 'Content-Length': '4' },
    });
    outgoing.flushHeaders();
    await once(outgoing, 'continue');
    outgoing.end('body');
    const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage];
    incoming.resume();
    assert.equal(incoming.statusCode, 200);
    assert.equal(seen.at(-1)?.body, 'body');
  });

  it('answer HEAD without a body', async () => {
    const answer = await raw(
      'HEAD http://192.0.2.8/ HTTP/1.1\r\nHost: 192.0.2.8\r\nConnection: close\r\n\r\n',
    );
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\n$/);
  });

  it('never make half an answer look whole', async () => {
    const socket = await connectTcp(fixture.httpPort, '::1');
    socket.write('GET http://192.0.2.7/half HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n');
    const { bytes } = await readAll(socket);
    assert.match(bytes.toString(), /Content-Length: 100\r\n[\s\S]*not all of it$/);
  });

  it('say 403 with the reason where the policy refuses', async () => {
    const answer = await raw('GET http://off.example/ HTTP/1.1\r\nHost: off.example\r\n\r\n');
    assert.match(answer, /^HTTP\/1\.1 403 Forbidden\r\n/);
    assert.match(answer, /Proxy-Status: postern; error=http_request_denied; details="no-rule"\r\n/);
    assert.match(answer, /off\.example port 80 is refused: no allow rule names the destination/);
  });

  it('say 502 where the destination refuses', async () => {
    const answer = await raw('GET http://192.0.2.7:81/ HTTP/1.1\r\nHost: x\r\n\r\n');
    assert.match(answer, /^HTTP\/1\.1 502 Bad Gateway\r\n[\s\S]*error=connection_refused/);
  });

  const bad: [name: string, request: string][] = [
    ['origin form', 'GET / HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n'],
    ['https', 'GET https://192.0.2.7/ HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n'],
    ['user information', 'GET http://me:pw@192.0.2.7/ HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n'],
    ['no host', 'GET http:/// HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['a port of 0', 'GET http://192.0.2.7:0/ HTTP/1.1\r\nHost: x\r\n\r\n'],
    [
      'both framings',
      'POST http://192.0.2.7/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    [
      'two lengths',
      'POST http://192.0.2.7/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde',
    ],
    ['two hosts', 'GET http://192.0.2.7/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n'],
    [
      'an unknown coding',
      'POST http://192.0.2.7/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n',
    ],
    [
      'a folded header',
      'GET http://192.0.2.7/ HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\nX: y\r\n\tz\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n\r\nabc',
    ],
    [
      'a bare LF in the chunk size',
      'POST http://192.0.2.7/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\nX\r\n\r\n',
    ],
    ['a space before the colon', 'GET http://192.0.2.7/ HTTP/1.1\r\nHost : x\r\n\r\n'],
    ['another protocol', 'SSH-2.0-OpenSSH_9.9\r\n\r\n'],
  ];
  for (const [name, text] of bad) {
    it(`are refused with ${name}`, async () => {
      const count = seen.length;
      const answer = await raw(text);
      assert.match(answer, /^HTTP\/1\.1 4\d\d /);
      assert.equal(seen.length, count, 'nothing may reach the origin');
    });
  }
});

describe('CONNECT', () => {
  it('opens a tunnel and keeps what came behind the request', async () => {
    const answer = await raw('CONNECT 192.0.2.7:443 HTTP/1.1\r\nHost: 192.0.2.7:443\r\n\r\nearly bytes');
    assert.equal(answer, 'HTTP/1.1 200 Connection Established\r\n\r\nearly bytes');
  });

  const refused: [target: string, status: number, details: string][] = [
    ['192.0.2.9:443', 403, 'no-rule'],
    ['192.0.2.7:22', 403, 'port-not-allowed'],
    ['0xc0.0.2.7:443', 403, 'numeric-spelling'],
    ['off.example:443', 403, 'no-rule'],
    ['[::1]:443', 403, 'no-rule'],
    ['192.0.2.7:81', 502, 'ERR_FLOW_REFUSED'],
    ['192.0.2.7', 400, 'bad-request'],
    ['192.0.2.7:99999', 400, 'bad-request'],
    ['http://192.0.2.7:443', 400, 'bad-request'],
  ];
  for (const [target, status, details] of refused) {
    it(`to ${target} says ${status} ${details}`, async () => {
      const answer = await raw(`CONNECT ${target} HTTP/1.1\r\nHost: x\r\n\r\n`);
      assert.ok(answer.startsWith(`HTTP/1.1 ${status} `), answer);
      assert.ok(answer.includes(`details="${details}"`), answer);
    });
  }
});

describe('a client that goes away', () => {
  it('takes its pending flow with it', async () => {
    fixture.parent.onOpen = () => {};
    const count = fixture.parent.opens.length;
    const socket = await connectTcp(fixture.httpPort, '::1');
    socket.write('CONNECT 192.0.2.7:443 HTTP/1.1\r\nHost: x\r\n\r\n');
    while (fixture.parent.opens.length === count) await new Promise((resolve) => setTimeout(resolve, 5));
    socket.resetAndDestroy();
    while (fixture.agent.report().flows.count > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    fixture.parent.onOpen = undefined;
  });
});
