import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import type net from 'node:net';
import { after, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import {
  BULK_AFTER_BYTES,
  configureBulk,
  lentFlowCount,
  startBulkThreads,
} from '../../shared/flow/bulk-threads.ts';
import type { FlowOutcome } from '../../shared/flow/flow.ts';
import { type Chain, chain, hashOf, readAll, writeMany } from './chain.ts';

/** Enough for a flow to be bulk. */
const BULK = randomBytes(2 * BULK_AFTER_BYTES);

const workers: Worker[] = [];
process.on('worker', (worker) => workers.push(worker));

before(async () => {
  configureBulk({ threadCount: 2 });
  await startBulkThreads();
});
beforeEach(() => configureBulk({ threadCount: 2, afterBytes: BULK_AFTER_BYTES, leastFlows: 1 }));

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let tries = 0; !holds(); tries += 1) {
    if (tries > 3000) throw new Error(`never came: ${what}`);
    await sleep(10);
  }
}

function descriptorCount(): number {
  return readdirSync('/proc/self/fd').length;
}

/** A chain whose two flows are both lent, after some bytes from the client that the server has read. */
async function lentChain(): Promise<Chain> {
  const made = await chain();
  const before = lentFlowCount();
  made.client.write(BULK);
  await readExactly(made.server, BULK.length);
  await until('both flows are lent', () => lentFlowCount() >= before + 2 || nudge(made));
  return made;
}

/** A flow is lent when it comes to rest, and it looks for rest when bytes pass. */
function nudge({ client, server }: Chain): boolean {
  client.write('n');
  server.read();
  return false;
}

async function readExactly(socket: net.Socket, size: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let have = 0;
  while (have < size) {
    const piece: Buffer | null = socket.read(Math.min(size - have, socket.readableLength) || undefined);
    if (piece === null) await once(socket, 'readable');
    else {
      have += piece.length;
      pieces.push(piece);
    }
  }
  return Buffer.concat(pieces);
}

async function ends({ nearDone, farDone }: Chain): Promise<string[]> {
  return [(await nearDone).end, (await farDone).end].sort();
}

describe('a bulk flow', () => {
  test('is lent in the midst of its bytes, both ways, and every one of them arrives', async () => {
    const { client, server, near, nearDone, farDone } = await chain();
    const size = 96 << 20;
    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, lentFlowCount());
    }, 1);
    const [sentUp, sentDown, gotDown, gotUp] = await Promise.all([
      writeMany(client, size),
      writeMany(server, size),
      hashOf(client),
      hashOf(server),
    ]);
    clearInterval(watch);
    assert.equal(gotUp, sentUp);
    assert.equal(gotDown, sentDown);
    assert.ok(most > 0, 'neither flow was lent');
    assert.deepEqual(await nearDone, { end: 'closed', sentBytes: size, receivedBytes: size });
    assert.deepEqual(await farDone, { end: 'closed', sentBytes: size, receivedBytes: size });
    assert.equal(near.sentBytes, size);
    assert.equal(lentFlowCount(), 0);
  });

  test('stays in its loop while it is alone there, and is lent once it is not', async () => {
    // A chain is two flows of this process.
    configureBulk({ leastFlows: 3 });
    const made = await chain();
    for (let round = 0; round < 4; round += 1) {
      made.client.write(BULK);
      await readExactly(made.server, BULK.length);
    }
    assert.equal(lentFlowCount(), 0);
    const another = await chain();
    await until('both flows are lent', () => lentFlowCount() === 2 || nudge(made));
    for (const { client, server } of [made, another]) {
      client.destroy();
      server.destroy();
    }
    await Promise.all([ends(made), ends(another)]);
    assert.equal(lentFlowCount(), 0);
  });

  test('shows its bytes while a thread counts them', async () => {
    const made = await lentChain();
    const before = made.near.sentBytes;
    made.client.write('seven b');
    await until('the bytes are counted', () => made.near.sentBytes === before + 7);
    made.client.destroy();
    made.server.destroy();
    await ends(made);
  });

  for (const side of ['client', 'server'] as const) {
    test(`is lent after the ${side}'s EOF, and the other direction goes on to its end`, async () => {
      const made = await chain();
      const [ending, going] = side === 'client' ? [made.client, made.server] : [made.server, made.client];
      ending.end('over');
      assert.equal((await readAll(going)).toString(), 'over');
      const hash = hashOf(ending);
      const sent = createHash('sha256').update(BULK).update(BULK).digest('hex');
      going.write(BULK);
      let most = 0;
      await until('a flow is lent', () => {
        most = Math.max(most, lentFlowCount());
        if (most === 0) return false;
        return true;
      }).catch(() => {});
      going.end(BULK);
      assert.equal(await hash, sent);
      assert.deepEqual(await ends(made), ['closed', 'closed']);
      assert.ok(most > 0, 'no flow was lent');
    });

    test(`carries the ${side}'s RST as RST while it is lent, and RST after EOF`, async () => {
      for (const eofFirst of [false, true]) {
        const made = await lentChain();
        const [resetting, suffering] =
          side === 'client' ? [made.client, made.server] : [made.server, made.client];
        const error = once(suffering, 'error');
        if (eofFirst) {
          suffering.resume();
          resetting.end();
          await once(suffering, 'end');
        } else suffering.resume();
        resetting.resetAndDestroy();
        assert.deepEqual(await ends(made), ['reset-local', 'reset-peer']);
        if (eofFirst) suffering.write('x');
        assert.match(((await error)[0] as NodeJS.ErrnoException).code ?? '', /ECONNRESET|EPIPE/);
      }
    });
  }

  test('carries an RST that comes at any moment of its being lent', async () => {
    configureBulk({ afterBytes: 0 });
    const before = descriptorCount();
    for (let round = 0; round < 60; round += 1) {
      const { client, server, nearDone, farDone } = await chain();
      const [resetting, suffering] = round % 2 === 0 ? [client, server] : [server, client];
      suffering.on('error', () => {}).resume();
      if (round % 3 > 0) resetting.write(BULK.subarray(0, 1 << (round % 18)));
      if (round % 5 > 0) await sleep(round % 5);
      resetting.resetAndDestroy();
      const outcomes = [(await nearDone).end, (await farDone).end].sort();
      assert.deepEqual(outcomes, ['reset-local', 'reset-peer'], `round ${round}`);
    }
    await until('all descriptors are closed', () => descriptorCount() <= before);
  });

  test('is reset at the application when the session is lost, before, while and after it is lent', async () => {
    configureBulk({ afterBytes: 0 });
    for (const delayMs of [0, 1, 2, 20]) {
      const made = await chain();
      const error = once(made.client, 'error');
      made.client.resume();
      made.client.write('x');
      if (delayMs > 0) await sleep(delayMs);
      made.near.abort('lost');
      assert.equal(((await error)[0] as NodeJS.ErrnoException).code, 'ECONNRESET');
      assert.equal((await made.nearDone).end, 'lost');
      made.server.destroy();
      await made.farDone;
    }
  });

  test('keeps its back-pressure', async () => {
    const made = await lentChain();
    const size = 64 << 20;
    const sent = writeMany(made.client, size);
    for (let last = -1; last !== made.near.sentBytes; ) {
      last = made.near.sentBytes;
      await sleep(300);
    }
    assert.ok(made.near.sentBytes < 32 << 20, `${made.near.sentBytes} bytes in flight`);
    made.server.end();
    const received = readAll(made.server);
    await sent;
    assert.ok((await received).length >= size);
    made.client.resume();
    assert.deepEqual(await ends(made), ['closed', 'closed']);
  });

  test('stays in its loop where there are no threads', async () => {
    configureBulk({ threadCount: 0 });
    const made = await chain();
    const got = hashOf(made.server);
    assert.equal(await writeMany(made.client, 8 << 20), await got);
    assert.equal(lentFlowCount(), 0);
    made.server.end();
    made.client.resume();
    await ends(made);
  });

  test('stays in its loop when there are no descriptors for a thread', async () => {
    const made = await chain();
    const limits = /^Max open files +(\d+) +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
    const highest = Math.max(...readdirSync('/proc/self/fd').map(Number));
    const fillers: number[] = [];
    setDescriptorLimit(`${highest + DESCRIPTORS_OF_PRLIMIT}:${limits?.[2]}`);
    try {
      assert.throws(() => {
        for (;;) fillers.push(openSync('/dev/null', 'r'));
      }, /EMFILE/);
      const got = hashOf(made.server);
      const sent = await writeMany(made.client, 8 << 20);
      assert.equal(await got, sent);
      assert.equal(lentFlowCount(), 0);
    } finally {
      for (const fd of fillers) closeSync(fd);
      setDescriptorLimit(`${limits?.[1]}:${limits?.[2]}`);
    }
    made.server.end();
    made.client.resume();
    assert.deepEqual(await ends(made), ['closed', 'closed']);
  });
});

/** Free below the lowered limit once the fillers are closed: to start `prlimit` takes pipes. */
const DESCRIPTORS_OF_PRLIMIT = 64;

function setDescriptorLimit(limit: string): void {
  execFileSync('prlimit', [`--pid=${process.pid}`, `--nofile=${limit}`]);
}

test('1,000 flows are lent and closed, some in a storm, and no descriptor is left', async () => {
  configureBulk({ afterBytes: 0 });
  const before = descriptorCount();
  const outcomes: Promise<FlowOutcome>[] = [];
  for (let batch = 0; batch < 10; batch += 1) {
    const chains = await Promise.all(Array.from({ length: 50 }, () => chain()));
    assert.ok(lentFlowCount() >= 100);
    await Promise.all(
      chains.map(async ({ client, server, nearDone, farDone }, index) => {
        outcomes.push(nearDone, farDone);
        client.on('error', () => {});
        server.on('error', () => {});
        client.end(`hello ${index}`);
        assert.equal((await readAll(server)).toString(), `hello ${index}`);
        if (batch % 2 === 0) server.end();
        else server.resetAndDestroy();
        client.resume();
      }),
    );
  }
  assert.equal((await Promise.all(outcomes)).length, 1000);
  assert.equal(lentFlowCount(), 0);
  await until('all descriptors are closed', () => descriptorCount() <= before);
});

test('a thread that dies ends its flows with a reset, says so, and the next flows stay in the loop', async () => {
  const said: unknown[] = [];
  const log = { error: (about: unknown) => said.push(about) };
  configureBulk({ log: log as never });
  const made = await lentChain();
  made.client.resume();
  made.server.resume();
  const errors = [once(made.client, 'error'), once(made.server, 'error')];
  for (const worker of workers) worker.postMessage(null);
  const codes = (await Promise.all(errors)).map(([error]) => (error as NodeJS.ErrnoException).code);
  assert.deepEqual(codes, ['ECONNRESET', 'ECONNRESET']);
  await ends(made);
  await until('both threads are gone', () => said.length === workers.length);
  assert.equal((said[0] as { event: string }).event, 'bulk.thread-lost');
  assert.equal(lentFlowCount(), 0);
  configureBulk({ threadCount: 0, log: undefined });
  const { client, server } = await chain();
  const got = hashOf(server);
  assert.equal(await writeMany(client, 4 << 20), await got);
});

after(async () => {
  for (const worker of workers) await worker.terminate();
});
