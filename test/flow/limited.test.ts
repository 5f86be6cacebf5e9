// A quota's bucket lives in the main loop: a flow that another thread carried would not be held to it.
import './lend-at-once.ts';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lentFlowCount } from '../../shared/flow/bulk-threads.ts';
import { startFlow } from '../../shared/flow/splice.ts';
import { readAll as readStream, TestAgent } from '../parent/agent.ts';
import { startParent, tcpServer, until } from '../parent/setup.ts';
import { hashOf, tcpPair, unixPair, writeMany } from './chain.ts';

/** Many times what makes a flow bulk. */
const SIZE = 16 << 20;

/** One flow that carries SIZE bytes up; says how many flows were lent at most while it did, and how many bytes were bounded. */
async function carry(isLimited: boolean): Promise<{ lent: number; boundedBytes: number }> {
  const [client, local] = await tcpPair();
  const [tunnel, far] = await unixPair();
  let lent = 0;
  let boundedBytes = 0;
  const done = Promise.withResolvers<void>();
  const limiter = {
    take(bytes: number): number {
      boundedBytes += bytes;
      return 0;
    },
  };
  startFlow(local, tunnel, {
    ...(isLimited ? { limiter } : {}),
    sendReset: () => {},
    onDone: () => done.resolve(),
  });
  far.on('data', () => {
    lent = Math.max(lent, lentFlowCount());
  });
  const sent = writeMany(client, SIZE);
  assert.equal(await hashOf(far), await sent);
  far.end();
  client.resume();
  await done.promise;
  return { lent, boundedBytes };
}

test('a flow under a quota is never lent to a bulk thread, and one without is', async () => {
  assert.deepEqual(await carry(false), { lent: 1, boundedBytes: 0 });
  assert.deepEqual(await carry(true), { lent: 0, boundedBytes: SIZE });
});

test('the flows of a guest with bytesPerSecond stay in the parent’s main loop; another guest’s are lent', async (t) => {
  const quotas = { bytesPerSecond: 1 << 30 };
  const { tunnel } = await startParent(t, { bounded: { quotas }, free: {} });
  const port = await tcpServer(t, (client) => client.pipe(client));
  const open = async (guest: string) => {
    const { stream, reply } = await (await TestAgent.register(tunnel(guest))).open(port);
    assert.equal(reply.status, 'ok');
    return stream;
  };
  const bounded = await open('bounded');
  const echoed = readStream(bounded);
  bounded.write(Buffer.alloc(SIZE, 'b'));
  const free = await open('free');
  free.write('f');
  await until(() => lentFlowCount() === 1, 'the flow of the free guest is lent');
  bounded.end();
  assert.equal((await echoed).length, SIZE);
  assert.equal(lentFlowCount(), 1);
  free.destroy();
  await until(() => lentFlowCount() === 0, 'it is over');
});
