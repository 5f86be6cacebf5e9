import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { type DialTimes, dial } from '../../../parent/egress/dial.ts';
import { failureOfErrno, weightiest } from '../../../parent/egress/errno.ts';
import { interleave } from '../../../parent/egress/order.ts';
import { blackHole } from '../black-hole.ts';
import { tcpServer, until } from '../setup.ts';

const NEVER = new AbortController().signal;
const TIMES: DialTimes = { attemptDelayMs: 50, attemptTimeoutMs: 400, timeoutMs: 1000 };

const candidates = (...addresses: string[]) => addresses.map((address, index) => ({ address, index }));

test('alternates the families, and keeps the guest’s order within each', () => {
  const order = (...addresses: string[]) => interleave(candidates(...addresses)).map(({ index }) => index);
  assert.deepEqual(order('2001:db8::1', '2001:db8::2', '192.0.2.1', '192.0.2.2'), [0, 2, 1, 3]);
  assert.deepEqual(order('192.0.2.1', '192.0.2.2', '192.0.2.3', '2001:db8::1'), [0, 3, 1, 2]);
  assert.deepEqual(order('192.0.2.1', '192.0.2.2'), [0, 1]);
  assert.deepEqual(order(), []);
});

test('every errno of connect() has its status, and the weightiest is told', () => {
  const expected = {
    ECONNREFUSED: 'refused',
    ETIMEDOUT: 'timeout',
    EHOSTUNREACH: 'unreachable',
    ENETUNREACH: 'unreachable',
    EMFILE: 'limit',
    ENFILE: 'limit',
    ENOBUFS: 'limit',
    EADDRNOTAVAIL: 'limit',
    EWHATEVER: 'unreachable',
  };
  for (const [errno, failure] of Object.entries(expected))
    assert.equal(failureOfErrno(errno), failure, errno);
  assert.equal(weightiest(['unreachable', 'refused', 'timeout']), 'refused');
  assert.equal(weightiest(['unreachable', 'timeout']), 'timeout');
  assert.equal(weightiest([]), 'unreachable');
});

test('passes over an address that refuses without waiting', async (t) => {
  const port = await tcpServer(t, () => {});
  const times = { ...TIMES, attemptDelayMs: 60_000 };
  const outcome = await dial(candidates('127.0.0.2', '127.0.0.1'), port, NEVER, times);
  assert.equal(outcome.kind, 'connected');
  assert.equal(outcome.kind === 'connected' && outcome.addressIndex, 1);
  if (outcome.kind === 'connected') outcome.socket.destroy();
});

test('does not wait for an address that says nothing, and leaves no loser behind', async (t) => {
  const hole = await blackHole(t);
  // Both families at the hole's port: IPv6 refuses, so only a server there can answer.
  const server = createServer((client) => client.resume()).listen(hole, '::1');
  t.after(() => server.close());
  await once(server, 'listening');
  const before = openSockets();
  const outcome = await dial(candidates('127.0.0.1', '::1'), hole, NEVER, {
    ...TIMES,
    attemptTimeoutMs: 60_000,
    timeoutMs: 60_000,
  });
  assert.equal(outcome.kind === 'connected' && outcome.addressIndex, 1);
  if (outcome.kind === 'connected') outcome.socket.destroy();
  await until(() => openSockets() <= before, 'every socket of the race is closed');
});

test('gives up in time, and says timeout', async (t) => {
  const port = await blackHole(t);
  assert.deepEqual(await dial(candidates('127.0.0.1'), port, NEVER, TIMES), {
    kind: 'failed',
    failure: 'timeout',
  });
  // The deadline of the whole comes first here.
  const slow = { attemptDelayMs: 50, attemptTimeoutMs: 60_000, timeoutMs: 300 };
  assert.deepEqual(await dial(candidates('127.0.0.1'), port, NEVER, slow), {
    kind: 'failed',
    failure: 'timeout',
  });
});

test('is cancelled at any time', async (t) => {
  const port = await blackHole(t);
  assert.deepEqual(await dial(candidates('127.0.0.1'), port, AbortSignal.abort()), { kind: 'cancelled' });
  const cancel = new AbortController();
  const dialled = dial(candidates('127.0.0.1'), port, cancel.signal);
  setImmediate(() => cancel.abort());
  assert.deepEqual(await dialled, { kind: 'cancelled' });
});

function openSockets(): number {
  return process
    .getActiveResourcesInfo()
    .filter((kind) => kind === 'TCPSocketWrap' || kind === 'TCPConnectWrap').length;
}
