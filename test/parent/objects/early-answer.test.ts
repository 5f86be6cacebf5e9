import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { createS3Store, type S3Store } from '../../../parent/objects/s3.ts';
import { allocateBody, recycleBody } from '../../../shared/objects/bodies.ts';

const MIB = 1024 * 1024;

/** An S3 server that says a PUT is done: `early` before it has read a byte of it, else after the last. */
let isEarly = false;
let server: Server;
let store: S3Store;

before(async () => {
  server = createServer((request, response) => {
    const done = (): void => void response.writeHead(200, { etag: '"0"' }).end();
    if (isEarly) {
      request.pause();
      done();
    } else request.resume().once('end', done);
  });
  server.on('checkContinue', (request, response) => {
    response.writeContinue();
    server.emit('request', request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  store = createS3Store({
    bucket: 'bucket',
    region: 'us-east-1',
    endpoint: `http://127.0.0.1:${port}`,
    forcePathStyle: true,
    credentials: { accessKeyId: 'id', secretAccessKey: 'secret' },
  });
});
after(() => {
  store.close();
  server.closeAllConnections();
  server.close();
});

async function isTakenBack(length: number): Promise<boolean> {
  const body = allocateBody(length).fill(7);
  const { buffer } = body;
  assert.equal(await store.store.putIfAbsent(`key-${length}`, body), 'created');
  recycleBody(body);
  return body.length === 0 || allocateBody(length).buffer === buffer;
}

test('the memory of a body is used again once an S3 server has all of it', async () => {
  isEarly = false;
  for (const length of [100 * 1024, MIB, 16 * MIB]) assert.ok(await isTakenBack(length), `${length} bytes`);
});

test('it is neither freed nor used again when the server answers before it has read it', async () => {
  isEarly = true;
  // More than the buffers of two sockets hold.
  for (const length of [16 * MIB, 12 * MIB]) assert.ok(!(await isTakenBack(length)), `${length} bytes`);
});
