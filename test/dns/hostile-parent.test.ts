import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { parseResolverAddress } from '../../guest/dns/upstream/address.ts';
import { DIRECT, resolverFor } from '../../guest/dns/upstream/resolvers.ts';
import { Validator } from '../../guest/dns/validator.ts';
import { addressRdata } from './encode.ts';
import { resolverServer } from './servers.ts';
import { NOW } from './signer.ts';
import { TestWorld } from './world.ts';
import { TestZone } from './zone.ts';

const WWW = DomainName.parse('www.example.');

function newWorld(): { world: TestWorld; zone: TestZone } {
  const zone = new TestZone('example.').add('www.example.', TYPE.A, addressRdata('192.0.2.1'));
  zone.add('other.example.', TYPE.A, addressRdata('192.0.2.66'));
  return { world: new TestWorld(new TestZone('.'), zone), zone };
}

/** A validator over real sockets, whose upstream does with each answer what `spoil` says. */
async function over(
  t: TestContext,
  world: TestWorld,
  spoil: (answer: Buffer, reply: (octets: Buffer) => void, transport: 'udp' | 'tcp') => void,
  limits: { deadlineMs?: number } = {},
): Promise<Validator> {
  const server = await resolverServer(
    async (query, reply) => spoil(await world.exchange(query), reply, 'udp'),
    (query) =>
      new Promise((resolve) => {
        void world.exchange(query).then((answer) => spoil(answer, resolve, 'tcp'));
      }),
  );
  t.after(() => server.close());
  const address = parseResolverAddress(`127.0.0.1:${server.port}`);
  assert.ok(address);
  return new Validator({
    resolvers: [resolverFor(address, DIRECT)],
    anchors: world.anchors(),
    clock: () => NOW,
    limits,
  });
}

describe('a parent that', () => {
  test('forges over UDP is asked over TCP', async (t) => {
    const { world } = newWorld();
    const validator = await over(t, world, (answer, reply, transport) => {
      if (transport === 'udp')
        answer.writeUInt8(answer.readUInt8(answer.length - 30) ^ 1, answer.length - 30);
      reply(answer);
    });
    assert.equal((await validator.resolve(WWW, TYPE.A)).state, 'secure');
  });

  test('forges everywhere gets nothing released', async (t) => {
    const { world } = newWorld();
    const validator = await over(t, world, (answer, reply) => {
      answer.writeUInt8(answer.readUInt8(answer.length - 30) ^ 1, answer.length - 30);
      reply(answer);
    });
    const verdict = await validator.resolve(WWW, TYPE.A);
    assert.equal(verdict.state, 'bogus');
    assert.deepEqual(verdict.answers, []);
  });

  test('answers twice, the wrong one second, changes nothing', async (t) => {
    const { world } = newWorld();
    const validator = await over(t, world, (answer, reply) => {
      reply(answer);
      const second = Buffer.from(answer);
      second.fill(0xff, 40);
      reply(second);
    });
    assert.equal((await validator.resolve(WWW, TYPE.A)).state, 'secure');
  });

  test('cuts its answers short is told so', async (t) => {
    const { world } = newWorld();
    const validator = await over(t, world, (answer, reply) => reply(answer.subarray(0, answer.length - 20)));
    const verdict = await validator.resolve(WWW, TYPE.A);
    assert.equal(verdict.state, 'bogus');
    assert.equal(verdict.code, 'ERR_DNS_MALFORMED');
  });

  test('carries no datagrams costs one wait, not one for every zone', async (t) => {
    const { world } = newWorld();
    let datagrams = 0;
    const validator = await over(t, world, (answer, reply, transport) => {
      if (transport === 'tcp') reply(answer);
      else datagrams += 1;
    });
    const verdict = await validator.resolve(WWW, TYPE.A);
    assert.equal(verdict.state, 'secure');
    assert.equal(datagrams, 1);
  });

  test('keeps silent is waited for until the deadline and no longer', async (t) => {
    const { world } = newWorld();
    const validator = await over(t, world, () => {}, { deadlineMs: 100 });
    const verdict = await validator.resolve(WWW, TYPE.A);
    assert.equal(verdict.state, 'bogus');
    assert.equal(verdict.code, 'ERR_DNS_DEADLINE');
  });

  test('replays what was signed: of another name, of an earlier time, of before a change of keys', async () => {
    const { world, zone } = newWorld();
    const other = zone.answer(DomainName.parse('other.example.'), TYPE.A).answer;
    world.tamper = (message, name, type) => {
      if (type === TYPE.A) message.answer = other.map((record) => ({ ...record, name }));
    };
    assert.equal(await world.summary('www.example.', TYPE.A), 'bogus 2 0');
    zone.signing = { inception: NOW - 1000, expiration: NOW - 10 };
    const old = zone.answer(WWW, TYPE.A).answer;
    zone.signing = {};
    world.tamper = (message, _name, type) => {
      if (type === TYPE.A) message.answer = old;
    };
    assert.equal((await world.ask('www.example.', TYPE.A)).code, 'ERR_DNS_EXPIRED');
    const before = zone.answer(WWW, TYPE.A).answer;
    zone.keys = new TestZone('example.').keys;
    zone.signingKeys = zone.keys;
    world.delegate(zone);
    world.tamper = (message, _name, type) => {
      if (type === TYPE.A) message.answer = before;
    };
    assert.equal((await world.ask('www.example.', TYPE.A)).code, 'ERR_DNS_KEY_MISSING');
  });
});
