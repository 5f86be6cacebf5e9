import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after, describe, it } from 'node:test';
import { pino } from 'pino';
import * as v from 'valibot';
import { connectRelay, type Relay } from '../../../guest/objects/client.ts';
import { grantsSchema, objectLimitsSchema } from '../../../parent/objects/config.ts';
import { ObjectRelay, type RelayConfig } from '../../../parent/objects/relay.ts';
import { PosternError } from '../../../shared/errors.ts';
import { streamPair } from '../../../shared/transport/pair.ts';

const folders: string[] = [];
after(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true }))));

const limits = v.parse(objectLimitsSchema, {});
const seen: string[] = [];
const options = {
  log: pino({ level: 'silent' }),
  observe: (guest: string, { operation }: { operation: string }) => seen.push(`${guest} ${operation}`),
};

async function configOf(guests: Record<string, unknown[]>, folder?: string): Promise<RelayConfig> {
  const path = folder ?? (await mkdtemp(`${tmpdir()}/postern-relay-`));
  folders.push(path);
  const entries = Object.entries(guests).map(([name, grants]) => [
    name,
    { objects: v.parse(grantsSchema, grants), objectLimits: limits },
  ]);
  return { stores: { disk: { directory: { path } } }, guests: Object.fromEntries(entries) };
}

function clientOf(relay: () => ObjectRelay, guest: string): Relay {
  return connectRelay({
    streamCount: 1,
    async open() {
      if (!relay().has(guest)) throw new PosternError('ERR_FLOW_DENIED', 'no objects');
      const [client, served] = streamPair();
      void relay().serve(guest, served);
      return client;
    },
  });
}

const grant = (prefix: string, more = {}) => ({ store: 'disk', prefix, ...more });
const denied = { code: 'ERR_STORE_DENIED' };

describe('object relay', () => {
  it('gives each guest its own keys, and none to a guest without grants', async () => {
    const relay = await ObjectRelay.open(
      await configOf({ a: [grant('a/')], b: [grant('b/')], c: [] }),
      options,
    );
    const [a, b, c] = ['a', 'b', 'c'].map((name) => clientOf(() => relay, name));
    assert.ok(a && b && c);
    assert.equal(await a.store.putIfAbsent('a/x', Buffer.from('1')), 'created');
    await assert.rejects(b.store.get('a/x'), denied);
    await assert.rejects(b.store.list(''), denied);
    await assert.rejects(c.store.get('a/x'), denied);
    assert.ok(seen.includes('a put') && seen.includes('b get'));
    for (const client of [a, b, c]) client.close();
    relay.retire();
  });

  it('changes over: what stays alike goes on, what is gone ends', async () => {
    const config = await configOf({ a: [grant('a/')], b: [grant('b/')] });
    let relay = await ObjectRelay.open(config, options);
    const [a, b] = ['a', 'b'].map((name) => clientOf(() => relay, name));
    assert.ok(a && b);
    await a.store.putIfAbsent('a/x', Buffer.from('1'));
    await b.store.putIfAbsent('b/x', Buffer.from('1'));
    const folder = config.stores['disk']?.directory?.path;
    const next = await ObjectRelay.open(
      await configOf({ a: [grant('a/')], b: [grant('c/')] }, folder),
      options,
      relay,
    );
    const before = relay;
    relay = next;
    before.retire(next);
    assert.equal(String(await a.store.get('a/x')), '1');
    const lost = await b.store.get('b/x').catch((error: PosternError) => error.code);
    assert.ok(lost === 'ERR_STORE_UNAVAILABLE' || lost === 'ERR_STORE_DENIED', String(lost));
    await assert.rejects(b.store.get('b/x'), denied);
    assert.equal(await b.store.putIfAbsent('c/x', Buffer.from('1')), 'created');
    a.close();
    b.close();
    relay.retire();
  });

  it('a change that cannot be made changes nothing', async () => {
    const config = await configOf({ a: [grant('a/')] });
    const relay = await ObjectRelay.open(config, options);
    const a = clientOf(() => relay, 'a');
    await a.store.putIfAbsent('a/x', Buffer.from('1'));
    const broken: RelayConfig = {
      ...config,
      stores: { disk: { directory: { path: '/nonexistent/postern' } } },
    };
    await assert.rejects(ObjectRelay.open(broken, options, relay), { code: 'ERR_STORE_UNSUITABLE' });
    assert.equal(String(await a.store.get('a/x')), '1');
    a.close();
    relay.retire();
  });

  it('ends a guest’s streams when its session is lost, and serves the next', async () => {
    const relay = await ObjectRelay.open(await configOf({ a: [grant('a/')] }), options);
    const a = clientOf(() => relay, 'a');
    await a.store.putIfAbsent('a/x', Buffer.from('1'));
    relay.endGuest('a');
    await a.store.get('a/x').catch(() => undefined);
    assert.equal(String(await a.store.get('a/x')), '1');
    a.close();
    relay.retire();
  });
});
