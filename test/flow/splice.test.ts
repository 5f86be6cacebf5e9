import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Flow, FlowOutcome } from '../../shared/flow/flow.ts';
import { resetSocket, startFlow } from '../../shared/flow/splice.ts';
import type { Stream } from '../../shared/transport/transport.ts';

/** A chain as in production: client - TCP - [flow] - unix - [flow] - TCP - server. */
interface Chain {
  readonly client: net.Socket;
  readonly server: net.Socket;
  readonly near: Flow;
  readonly far: Flow;
  readonly nearDone: Promise<FlowOutcome>;
  readonly farDone: Promise<FlowOutcome>;
}

let folder = '';
before(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'postern-splice-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

const opened: net.Socket[] = [];
after(() => {
  for (const socket of opened) socket.destroy();
});

const OPTIONS = { allowHalfOpen: true, pauseOnConnect: true };

async function tcpPair(): Promise<[net.Socket, net.Socket]> {
  const listener = net.createServer(OPTIONS).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as net.AddressInfo;
  const client = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
  const [[accepted]] = await Promise.all([once(listener, 'connection'), once(client, 'connect')]);
  listener.close();
  opened.push(client, accepted as net.Socket);
  return [client, accepted as net.Socket];
}

let unixCount = 0;
async function unixPair(): Promise<[Stream, Stream]> {
  unixCount += 1;
  const socketPath = path.join(folder, `${unixCount}.sock`);
  const listener = net.createServer(OPTIONS).listen(socketPath);
  await once(listener, 'listening');
  const client = net.connect({ path: socketPath, allowHalfOpen: true });
  const [[accepted]] = await Promise.all([once(listener, 'connection'), once(client, 'connect')]);
  listener.close();
  const peer = { kind: 'unix', path: socketPath } as const;
  return [Object.assign(client, { peer }), Object.assign(accepted as net.Socket, { peer })];
}

async function chain(early?: { fromClient: Buffer }): Promise<Chain> {
  const [client, nearLocal] = await tcpPair();
  const [server, farLocal] = await tcpPair();
  const [nearTunnel, farTunnel] = await unixPair();
  if (early !== undefined) {
    client.write(early.fromClient);
    await once(nearLocal, 'readable');
  }
  const nearDone = Promise.withResolvers<FlowOutcome>();
  const farDone = Promise.withResolvers<FlowOutcome>();
  const flows: { near?: Flow; far?: Flow } = {};
  // The control stream's part: RESET reaches the other side a moment later.
  const near = startFlow(nearLocal, nearTunnel, {
    sendReset: () => setImmediate(() => flows.far?.abort('reset-peer')),
    onDone: nearDone.resolve,
  });
  const far = startFlow(farLocal, farTunnel, {
    sendReset: () => setImmediate(() => flows.near?.abort('reset-peer')),
    onDone: farDone.resolve,
  });
  Object.assign(flows, { near, far });
  return { client, server, near, far, nearDone: nearDone.promise, farDone: farDone.promise };
}

async function readAll(socket: net.Socket): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of socket.iterator({ destroyOnReturn: false })) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

async function hashOf(socket: net.Socket): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of socket.iterator({ destroyOnReturn: false })) hash.update(piece as Buffer);
  return hash.digest('hex');
}

async function writeMany(socket: net.Socket, byteCount: number): Promise<string> {
  const hash = createHash('sha256');
  const block = randomBytes(1 << 20);
  for (let sent = 0; sent < byteCount; ) {
    const piece = block.subarray(0, Math.min(1 + Math.floor(Math.random() * block.length), byteCount - sent));
    hash.update(piece);
    sent += piece.length;
    if (!socket.write(piece)) await once(socket, 'drain');
  }
  socket.end();
  return hash.digest('hex');
}

describe('a flow', () => {
  test('carries 64 MiB each way at once, byte for byte', async () => {
    const { client, server, nearDone, farDone } = await chain();
    const size = 64 << 20;
    const [sentUp, sentDown, gotDown, gotUp] = await Promise.all([
      writeMany(client, size),
      writeMany(server, size),
      hashOf(client),
      hashOf(server),
    ]);
    assert.equal(gotUp, sentUp);
    assert.equal(gotDown, sentDown);
    assert.deepEqual(await nearDone, { end: 'closed', sentBytes: size, receivedBytes: size });
    assert.deepEqual(await farDone, { end: 'closed', sentBytes: size, receivedBytes: size });
  });

  test('keeps what was read before it started, however long', async () => {
    const early = randomBytes(200_000);
    const { client, server } = await chain({ fromClient: early });
    client.end();
    assert.deepEqual(await readAll(server), early);
    server.end('bye');
    assert.equal((await readAll(client)).toString(), 'bye');
  });

  for (const side of ['client', 'server'] as const) {
    test(`carries the ${side}'s RST as RST`, async () => {
      const { client, server, nearDone, farDone } = await chain();
      const [resetting, suffering] = side === 'client' ? [client, server] : [server, client];
      suffering.resume();
      const error = once(suffering, 'error');
      resetting.write('x');
      await once(suffering, 'data');
      resetting.resetAndDestroy();
      assert.equal(((await error)[0] as NodeJS.ErrnoException).code, 'ECONNRESET');
      const [nearEnd, farEnd] = [(await nearDone).end, (await farDone).end];
      assert.deepEqual([nearEnd, farEnd].sort(), ['reset-local', 'reset-peer']);
    });

    test(`carries the ${side}'s RST as RST after its EOF`, async () => {
      const { client, server, nearDone, farDone } = await chain();
      const [resetting, suffering] = side === 'client' ? [client, server] : [server, client];
      resetting.end();
      await readAll(suffering);
      resetting.resetAndDestroy();
      const [nearEnd, farEnd] = [(await nearDone).end, (await farDone).end];
      assert.deepEqual([nearEnd, farEnd].sort(), ['reset-local', 'reset-peer']);
      // Node looks at a socket whose EOF it has read only when it writes.
      const error = once(suffering, 'error');
      suffering.write('x');
      assert.match(((await error)[0] as NodeJS.ErrnoException).code ?? '', /ECONNRESET|EPIPE/);
    });
  }

  test('resets the application when the session is lost', async () => {
    const { client, near, nearDone } = await chain();
    client.resume();
    const error = once(client, 'error');
    near.abort('lost');
    assert.equal(((await error)[0] as NodeJS.ErrnoException).code, 'ECONNRESET');
    assert.equal((await nearDone).end, 'lost');
  });

  test('holds a bounded amount for a reader that stalls, and goes on when it reads', async () => {
    const { client, server, near } = await chain();
    const size = 64 << 20;
    const sent = writeMany(client, size);
    await settled(() => near.sentBytes);
    // Socket buffers of four hops; not a share of what the client has to send.
    assert.ok(near.sentBytes < 32 << 20, `${near.sentBytes} bytes in flight`);
    assert.equal(await hashOf(server), await sent);
  });

  test('obeys its byte limiter', async () => {
    const [client, local] = await tcpPair();
    const [tunnel, farTunnel] = await unixPair();
    const taken: number[] = [];
    startFlow(local, tunnel, {
      sendReset: () => {},
      onDone: () => {},
      limiter: {
        take: (bytes) => {
          taken.push(bytes);
          return 20;
        },
      },
    });
    const sent = writeMany(client, 1 << 20);
    assert.equal(await hashOf(farTunnel), await sent);
    assert.equal(
      taken.reduce((sum, bytes) => sum + bytes, 0),
      1 << 20,
    );
    client.destroy();
    farTunnel.destroy();
  });
});

// All at once: the longest waits 40 s, past every timer of the way.
describe('half-close, however late the other direction comes', { concurrency: true }, () => {
  for (const delayMs of [0, 300, 1500, 40_000]) {
    test(`delivers a reply that comes ${delayMs} ms after the client's EOF`, async () => {
      const { client, server, nearDone } = await chain();
      client.end('question');
      assert.equal((await readAll(server)).toString(), 'question');
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      server.end('answer');
      assert.equal((await readAll(client)).toString(), 'answer');
      assert.equal((await nearDone).end, 'closed');
    });

    test(`delivers what the client says ${delayMs} ms after the server's EOF`, async () => {
      const { client, server, farDone } = await chain();
      server.end('greeting');
      assert.equal((await readAll(client)).toString(), 'greeting');
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      client.end('late');
      assert.equal((await readAll(server)).toString(), 'late');
      assert.equal((await farDone).end, 'closed');
    });
  }
});

/** Waits until a counter stands still. */
async function settled(read: () => number): Promise<void> {
  for (let last = -1; last !== read(); ) {
    last = read();
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

test('a socket that was ended in the same turn is reset and closed all the same', async () => {
  const [client] = await tcpPair();
  const failures: Error[] = [];
  client.on('error', (error) => failures.push(error));
  client.end();
  resetSocket(client);
  await once(client, 'close');
  assert.deepEqual(failures, []);
});
