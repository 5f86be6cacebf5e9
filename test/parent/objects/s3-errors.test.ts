import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { createS3Store, type S3Store } from '../../../parent/objects/s3.ts';
import { isPosternError } from '../../../shared/errors.ts';

type Behave = (request: IncomingMessage, response: ServerResponse) => void;

/** Long enough for a busy machine, short enough to be waited for by every row that hangs. */
const REQUEST_TIMEOUT_MS = 1500;
const noSuchKey = error(404, 'NoSuchKey');

function error(status: number, code: string, headers: Record<string, string> = {}): Behave {
  return (_, response) => {
    response.writeHead(status, { 'content-type': 'application/xml', ...headers });
    response.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>m</Message></Error>`);
  };
}

function body(text: string, headers: Record<string, string>, status = 200): Behave {
  return (_, response) => {
    response.writeHead(status, headers);
    response.write(text);
    response.end();
  };
}

function cut(text: string, headers: Record<string, string>): Behave {
  return (_, response) => {
    response.writeHead(200, headers);
    response.write(text);
    setTimeout(() => response.destroy(), 20);
  };
}

const hang: Behave = () => {};
const drop: Behave = (request) => request.socket.destroy();
const html = body('<html>not found</html>', { 'content-type': 'text/html' }, 404);

describe('S3 store: what a server’s answers mean', () => {
  let server: Server;
  let s3: S3Store;
  let behave: Behave = noSuchKey;
  before(async () => {
    server = createServer((request, response) => {
      request.resume();
      behave(request, response);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    assert.ok(address !== null && typeof address === 'object');
    s3 = createS3Store({
      bucket: 'b',
      region: 'us-east-1',
      endpoint: `http://127.0.0.1:${address.port}`,
      forcePathStyle: true,
      credentials: { accessKeyId: 'a', secretAccessKey: 's' },
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
    });
  });
  after(() => {
    s3.close();
    server.closeAllConnections();
    server.close();
  });

  async function outcome(work: Promise<unknown>): Promise<string> {
    try {
      return String(await work);
    } catch (failure) {
      assert.ok(isPosternError(failure), String(failure));
      return failure.code;
    }
  }

  const table: readonly [name: string, Behave, put: string, get: string][] = [
    ['409', error(409, 'ConditionalRequestConflict'), 'ERR_STORE_AMBIGUOUS', 'ERR_STORE_UNAVAILABLE'],
    ['412', error(412, 'PreconditionFailed'), 'exists', 'ERR_STORE_DENIED'],
    ['500', error(500, 'InternalError'), 'ERR_STORE_AMBIGUOUS', 'ERR_STORE_UNAVAILABLE'],
    ['502 of a proxy', body('bad gateway', {}, 502), 'ERR_STORE_AMBIGUOUS', 'ERR_STORE_UNAVAILABLE'],
    ['503 slow down', error(503, 'SlowDown'), 'ERR_STORE_UNAVAILABLE', 'ERR_STORE_UNAVAILABLE'],
    ['429', error(429, 'Whatever'), 'ERR_STORE_UNAVAILABLE', 'ERR_STORE_UNAVAILABLE'],
    ['403', error(403, 'AccessDenied'), 'ERR_STORE_DENIED', 'ERR_STORE_DENIED'],
    [
      '403 of a wrong clock',
      error(403, 'RequestTimeTooSkewed'),
      'ERR_STORE_AMBIGUOUS',
      'ERR_STORE_UNAVAILABLE',
    ],
    ['400 of old credentials', error(400, 'ExpiredToken'), 'ERR_STORE_AMBIGUOUS', 'ERR_STORE_UNAVAILABLE'],
    ['400 time-out', error(400, 'RequestTimeout'), 'ERR_STORE_AMBIGUOUS', 'ERR_STORE_UNAVAILABLE'],
    ['400', error(400, 'InvalidRequest'), 'ERR_STORE_DENIED', 'ERR_STORE_DENIED'],
    ['400 too large', error(400, 'EntityTooLarge'), 'ERR_STORE_LIMIT', 'ERR_STORE_LIMIT'],
    ['no such key', noSuchKey, 'ERR_STORE_DENIED', 'undefined'],
    ['no such bucket', error(404, 'NoSuchBucket'), 'ERR_STORE_DENIED', 'ERR_STORE_DENIED'],
    ['404 of a proxy', html, 'ERR_STORE_DENIED', 'ERR_STORE_DENIED'],
    [
      '301 to elsewhere',
      error(301, 'PermanentRedirect', { location: '/x' }),
      'ERR_STORE_DENIED',
      'ERR_STORE_DENIED',
    ],
    ['connection dropped', drop, 'ERR_STORE_AMBIGUOUS', 'ERR_STORE_UNAVAILABLE'],
    ['no answer', hang, 'ERR_STORE_AMBIGUOUS', 'ERR_STORE_UNAVAILABLE'],
    ['body cut', cut('abc', { 'content-length': '10' }), 'ERR_STORE_AMBIGUOUS', 'ERR_STORE_UNAVAILABLE'],
    [
      'body that stops',
      (_, response) => {
        response.writeHead(200, { 'content-length': '10' });
        response.write('abc');
      },
      'ERR_STORE_AMBIGUOUS',
      'ERR_STORE_UNAVAILABLE',
    ],
    ['body without length', body('abc', {}), 'created', 'ERR_STORE_CORRUPT'],
    [
      'body over the limit',
      body('abc', { 'content-length': '99999999' }),
      'ERR_STORE_AMBIGUOUS',
      'ERR_STORE_CORRUPT',
    ],
    ['body', body('abc', { 'content-length': '3' }), 'created', 'abc'],
  ];
  for (const [name, behaviour, put, get] of table) {
    it(`${name}: PUT ${put}, GET ${get}`, async () => {
      behave = behaviour;
      assert.equal(await outcome(s3.store.putIfAbsent('k', Buffer.from('abc'))), put);
      assert.equal(await outcome(s3.store.get('k')), get);
    });
  }

  it('refuses a whole object, or another part of it, in answer to a range', async () => {
    behave = body('abcdef', { 'content-length': '6' });
    assert.equal(await outcome(s3.store.get('k', { range: { offset: 1, length: 2 } })), 'ERR_STORE_CORRUPT');
    behave = body('abc', { 'content-length': '3' });
    assert.equal(await outcome(s3.store.get('k', { range: { offset: 1, length: 3 } })), 'ERR_STORE_CORRUPT');
    behave = body('a', { 'content-length': '1', 'content-range': 'bytes 1-1/2' }, 206);
    assert.equal(await outcome(s3.store.get('k', { range: { offset: 1, length: 2 } })), 'ERR_STORE_CORRUPT');
  });

  it('asks a GET before it says that an object is not there', async () => {
    const methods: string[] = [];
    behave = (request, response) => {
      methods.push(request.method ?? '');
      noSuchKey(request, response);
    };
    assert.equal(await s3.store.head('k'), undefined);
    assert.deepEqual(methods, ['HEAD', 'GET']);
  });

  it('sends every PUT with If-None-Match: *, its length, and no trailer', async () => {
    let headers: IncomingMessage['headers'] = {};
    behave = (request, response) => {
      headers = request.headers;
      response.end();
    };
    await s3.store.putIfAbsent('k', Buffer.from('abc'));
    assert.equal(headers['if-none-match'], '*');
    assert.equal(headers['content-length'], '3');
    assert.equal(headers['transfer-encoding'], undefined);
    assert.equal(headers['x-amz-trailer'], undefined);
  });

  it('passes over objects that nobody of ours put there, to the end', async () => {
    const listing = (keys: string[], truncated: boolean): string => {
      const contents = keys.map((key) => `<Contents><Key>${key}</Key><Size>1</Size></Contents>`).join('');
      return `<ListBucketResult><IsTruncated>${truncated}</IsTruncated>${contents}</ListBucketResult>`;
    };
    behave = (request, response) => {
      const first = !request.url?.includes('start-after=');
      response.setHeader('content-type', 'application/xml');
      response.end(first ? listing(['v/a b', 'v/a//c'], true) : listing(['v/d'], false));
    };
    assert.deepEqual(await s3.store.list('v/'), {
      objects: [{ key: 'v/d', sizeBytes: 1 }],
      truncated: false,
    });
  });

  it('says "out of reach" of a port where nobody listens', async () => {
    const gone = createS3Store({
      bucket: 'b',
      region: 'us-east-1',
      endpoint: 'http://127.0.0.1:1',
      forcePathStyle: true,
      credentials: { accessKeyId: 'a', secretAccessKey: 's' },
    });
    assert.equal(await outcome(gone.store.putIfAbsent('k', Buffer.from('x'))), 'ERR_STORE_UNAVAILABLE');
    assert.equal(await outcome(gone.store.get('k')), 'ERR_STORE_UNAVAILABLE');
    gone.close();
  });
});
