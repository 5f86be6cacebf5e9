import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TokenBucket } from '../../../parent/guest/rate.ts';
import { readAll, readReply, TestAgent } from '../agent.ts';
import { blackHole } from '../black-hole.ts';
import { startParent, tcpServer, until } from '../setup.ts';

test('a bucket lets a burst through, then its rate; debt is paid in order', () => {
  let now = 0;
  const bucket = new TokenBucket(10, 10, () => now);
  for (let index = 0; index < 10; index += 1) assert.equal(bucket.tryTake(), true);
  assert.equal(bucket.tryTake(), false);
  now += 100;
  assert.equal(bucket.tryTake(), true);
  assert.equal(bucket.tryTake(), false);
  now += 1_000_000;
  assert.equal(bucket.take(10), 0);
  assert.equal(bucket.take(5), 500);
  assert.equal(bucket.take(5), 1000);
  now += 1000;
  assert.equal(bucket.take(0), 0);
});

test('twenty black-holed dials delay no other dial, of the same guest or another', async (t) => {
  const { parent, tunnel } = await startParent(t, { web: {}, other: {} });
  const port = await tcpServer(t, (client) => client.end('here'));
  const hole = await blackHole(t);
  const web = await TestAgent.register(tunnel('web'));
  const other = await TestAgent.register(tunnel('other'));
  const idleMs: number[] = [];
  for (let round = 0; round < 20; round += 1) idleMs.push(await timeToOpen(web, port));
  const hanging = await Promise.all(
    Array.from({ length: 20 }, () => web.start({ port: hole, addresses: ['127.0.0.1'] })),
  );
  const dials = () => parent.guest('web')?.usage.dials;
  await until(() => dials() === 20, 'twenty dials hang');
  const sameMs: number[] = [];
  const otherMs: number[] = [];
  for (let round = 0; round < 20; round += 1) {
    sameMs.push(await timeToOpen(web, port));
    otherMs.push(await timeToOpen(other, port));
  }
  // The order is what is asserted: all of these were answered while the twenty still hung.
  assert.equal(dials(), 20);
  const worst = (times: number[]) => Math.max(...times).toFixed(1);
  t.diagnostic(
    `worst of 20: ${worst(idleMs)} ms before, ${worst(sameMs)} ms beside, ${worst(otherMs)} ms other guest`,
  );
  for (const stream of hanging) stream.destroy();
  await until(() => dials() === 0, 'they are given up');
});

async function timeToOpen(agent: TestAgent, port: number): Promise<number> {
  const startedAt = performance.now();
  const { stream, reply } = await agent.open(port);
  assert.equal(reply.status, 'ok');
  const tookMs = performance.now() - startedAt;
  assert.equal((await readAll(stream)).toString(), 'here');
  stream.end();
  return tookMs;
}

test('over a quota the answer is limit, at once, and other guests do not feel it', async (t) => {
  const { parent, tunnel, lines } = await startParent(t, {
    web: { quotas: { flows: 5, dialsInFlight: 2 } },
    other: {},
  });
  const port = await tcpServer(t, () => {});
  const hole = await blackHole(t);
  const web = await TestAgent.register(tunnel('web'));
  const other = await TestAgent.register(tunnel('other'));
  const hanging = [
    await web.start({ port: hole, addresses: ['127.0.0.1'] }),
    await web.start({ port: hole, addresses: ['127.0.0.1'] }),
  ];
  await until(() => parent.guest('web')?.usage.dials === 2, 'two dials hang');
  assert.equal((await web.open(port)).reply.status, 'limit');
  assert.equal((await other.open(port)).reply.status, 'ok');
  for (const stream of hanging) stream.destroy();
  await until(() => parent.guest('web')?.usage.dials === 0, 'they are given up');
  for (let index = 0; index < 5; index += 1) assert.equal((await web.open(port)).reply.status, 'ok');
  assert.equal((await web.open(port)).reply.status, 'limit');
  assert.equal((await other.open(port)).reply.status, 'ok');
  assert.deepEqual(
    lines.filter(({ msg }) => msg === 'flow over a quota').map(({ quota }) => quota),
    ['dials', 'flows'],
  );
});

test('new flows a second are bounded', async (t) => {
  const { tunnel } = await startParent(t, { web: { quotas: { newFlowsPerSecond: 3 } } });
  const agent = await TestAgent.register(tunnel('web'));
  const streams = await Promise.all(
    Array.from({ length: 10 }, () => agent.start({ port: 1, addresses: ['127.0.0.1'] })),
  );
  const statuses = await Promise.all(streams.map(async (stream) => (await readReply(stream)).status));
  assert.ok(statuses.filter((status) => status === 'refused').length >= 3);
  assert.ok(statuses.includes('limit'));
});

test('bytes a second are bounded for all flows of a guest together, and whole', async (t) => {
  const bytesPerSecond = 1024 * 1024;
  const { tunnel } = await startParent(t, { web: { quotas: { bytesPerSecond } }, other: {} });
  const sizeBytes = bytesPerSecond;
  const port = await tcpServer(t, (client) => client.end(Buffer.alloc(sizeBytes, 'b')));
  const web = await TestAgent.register(tunnel('web'));
  const startedAt = performance.now();
  const bodies = await Promise.all([1, 2, 3].map(async () => readAll((await web.open(port)).stream)));
  const tookMs = performance.now() - startedAt;
  for (const body of bodies) assert.equal(body.length, sizeBytes);
  t.diagnostic(
    `${3 * sizeBytes} bytes at ${bytesPerSecond} a second, burst of one second: ${tookMs.toFixed(0)} ms`,
  );
  // Three seconds' worth less the burst of one: a limiter that does nothing would take some 20 ms.
  assert.ok(tookMs > 1000);
});
