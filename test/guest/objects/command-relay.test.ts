import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { relayForCommand } from '../../../guest/objects/command-relay.ts';
import { openObjectStream } from '../../../guest/objects/open.ts';
import { TestAgent } from '../../parent/agent.ts';
import { type Started, startParent, until } from '../../parent/setup.ts';

const KEY = randomBytes(32);

async function parentWithObjects(t: TestContext): Promise<Started> {
  const path = await mkdtemp(join(tmpdir(), 'postern-objects-'));
  t.after(() => rm(path, { recursive: true }));
  const grants = { objects: [{ store: 'disk', prefix: 'web/' }] };
  return startParent(t, { web: grants }, () => ({ stores: { disk: { directory: { path } } } }));
}

function commandRelay(t: TestContext, started: Started, key = KEY) {
  const opened = relayForCommand(started.tunnel('web'), key);
  t.after(() => opened.close());
  return opened;
}

/** What the parent wrote down about refusals, and about sessions. */
function said({ lines }: Started, event: string): readonly Record<string, unknown>[] {
  return lines.filter((line) => line['event'] === event);
}

async function refusedCount({ parent }: Started): Promise<number> {
  const text = await parent.metrics.registry.getSingleMetricAsString('postern_parent_streams_refused_total');
  return [...text.matchAll(/\} (\d+)/g)].reduce((sum, [, count]) => sum + Number(count), 0);
}

test('a command without an agent registers before its first stream: nothing in the audit trail', async (t) => {
  const started = await parentWithObjects(t);
  const { relay, close } = commandRelay(t, started);
  const keys = Array.from({ length: 8 }, (_, index) => `web/${index}`);
  await Promise.all(keys.map((key) => relay.store.putIfAbsent(key, Buffer.from(key))));
  assert.deepEqual((await relay.store.list('web/')).objects.length, keys.length);
  await close();
  assert.deepEqual(said(started, 'stream.refused'), []);
  assert.equal(await refusedCount(started), 0);
  assert.deepEqual(
    said(started, 'session.up').map(({ agent }) => agent),
    ['postern-volume'],
  );
});

test('beside an agent it uses the agent’s session, which is no refusal either, and goes on without it', async (t) => {
  const started = await parentWithObjects(t);
  const agent = await TestAgent.register(started.tunnel('web'), KEY);
  const { relay } = commandRelay(t, started);
  assert.equal(await relay.store.putIfAbsent('web/a', Buffer.from('a')), 'created');
  assert.equal(agent.control.destroyed, false);
  assert.deepEqual(
    said(started, 'session.held').map(({ guest, level }) => [guest, level]),
    [['web', 30]],
  );
  agent.close();
  await until(() => started.parent.guest('web')?.session === undefined, 'the agent’s session is gone');
  assert.deepEqual(await relay.store.head('web/a'), { sizeBytes: 1 });
  assert.equal(said(started, 'session.up').at(-1)?.['agent'], 'postern-volume');
  assert.deepEqual(said(started, 'stream.refused'), []);
  assert.equal(await refusedCount(started), 0);
});

test('who does not hold the key is refused and written down, with a session there and without', async (t) => {
  const started = await parentWithObjects(t);
  await assert.rejects(openObjectStream(started.tunnel('web'), 2, randomBytes(32)), {
    code: 'ERR_SESSION_UNREGISTERED',
  });
  await TestAgent.register(started.tunnel('web'), KEY);
  const rogue = commandRelay(t, started, randomBytes(32));
  await assert.rejects(rogue.relay.store.head('web/a'), { code: 'ERR_STORE_UNAVAILABLE' });
  assert.deepEqual(
    said(started, 'stream.refused').map(({ reason }) => reason),
    ['unregistered', 'taken', 'unproven'],
  );
  assert.equal(await refusedCount(started), 3);
  assert.deepEqual(said(started, 'session.held'), []);
});
