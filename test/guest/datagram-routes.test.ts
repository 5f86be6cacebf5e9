import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { DatagramRoutes, type DatagramTarget, WAITING_MAX_BYTES } from '../../guest/flow/datagram-routes.ts';
import { PosternError } from '../../shared/errors.ts';

/** Decisions that the test makes when it likes. */
class Decisions {
  readonly asked: {
    readonly target: DatagramTarget;
    decide(addresses: readonly string[]): void;
    fail(): void;
  }[] = [];
  readonly sent: string[] = [];
  readonly routes = new DatagramRoutes(
    (target) =>
      new Promise((resolve, reject) => {
        const fail = (): void => reject(new PosternError('ERR_RESOLVE_FAILED', 'no resolver'));
        this.asked.push({ target, decide: resolve, fail });
      }),
    ({ address, port }, payload) => this.sent.push(`${address} ${port} ${payload}`),
  );

  take(host: string, payload: string | Buffer, port = 53): void {
    this.routes.take({ host, port }, Buffer.from(payload));
  }
}

test('what waits for a decision goes in its order; what follows is decided with it', async () => {
  const decisions = new Decisions();
  decisions.take('one.example', 'a');
  decisions.take('one.example', 'b');
  decisions.take('one.example', 'other port', 54);
  assert.equal(decisions.asked.length, 2);
  decisions.asked[0]?.decide(['192.0.2.7', '2001:db8::7']);
  decisions.asked[1]?.decide([]);
  await turn();
  decisions.take('one.example', 'c');
  decisions.take('one.example', 'refused', 54);
  assert.deepEqual(decisions.sent, ['192.0.2.7 53 a', '192.0.2.7 53 b', '192.0.2.7 53 c']);
  assert.equal(decisions.asked.length, 2);
});

test('a name goes to its next address when one cannot be reached, and stays with the last', async () => {
  const decisions = new Decisions();
  decisions.take('one.example', 'a');
  decisions.asked[0]?.decide(['192.0.2.7', '192.0.2.8']);
  await turn();
  decisions.routes.unreachable({ address: '192.0.2.7', port: 54 });
  decisions.take('one.example', 'b');
  for (let times = 0; times < 3; times += 1) decisions.routes.unreachable({ address: '192.0.2.7', port: 53 });
  decisions.take('one.example', 'c');
  decisions.routes.unreachable({ address: '192.0.2.8', port: 53 });
  decisions.take('one.example', 'd');
  assert.deepEqual(decisions.sent, ['192.0.2.7 53 a', '192.0.2.7 53 b', '192.0.2.8 53 c', '192.0.2.8 53 d']);
});

test('what waits is bounded in bytes and in names, and a failure frees it', async () => {
  const decisions = new Decisions();
  for (let index = 0; index < 10_000; index += 1) decisions.take(`${index}.example`, '');
  assert.ok(decisions.asked.length <= WAITING_MAX_BYTES / 512);
  for (const { fail } of decisions.asked.splice(0)) fail();
  await turn();
  const large = Buffer.alloc(30_000);
  for (let times = 0; times < 5; times += 1) decisions.take('large.example', large);
  decisions.asked[0]?.decide(['192.0.2.7']);
  await turn();
  assert.equal(decisions.sent.length, 2);
});

test('the payload is copied while it waits', async () => {
  const decisions = new Decisions();
  const payload = Buffer.from('before');
  decisions.routes.take({ host: 'one.example', port: 53 }, payload);
  payload.fill('x');
  decisions.asked[0]?.decide(['192.0.2.7']);
  await turn();
  assert.deepEqual(decisions.sent, ['192.0.2.7 53 before']);
});
