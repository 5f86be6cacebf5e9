import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { resetSocket, startFlow } from '../../shared/flow/splice.ts';
import { chain, hashOf, readAll, tcpPair, unixPair, writeMany } from './chain.ts';

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
