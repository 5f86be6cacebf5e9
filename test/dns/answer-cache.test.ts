import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { LeaseTable } from '../../guest/dns/leases.ts';
import { readMessage } from '../../guest/dns/message.ts';
import { DomainName } from '../../guest/dns/name.ts';
import { AnswerCache } from '../../guest/dns/serve/answer-cache.ts';
import { Responder } from '../../guest/dns/serve/responder.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { encodeQuery } from '../../guest/dns/upstream/query.ts';
import { addressRdata, emptyMessage, encodeMessage } from './encode.ts';
import { TestWorld } from './world.ts';
import { TestZone } from './zone.ts';

const WWW = DomainName.parse('www.example.');
const lease = {
  name: 'www.example',
  chain: ['www.example'],
  addresses: ['192.0.2.1'],
  ttlSeconds: 300,
  dnssec: 'secure' as const,
};

function setUp() {
  const clock = { seconds: 0.5 };
  const cache = new AnswerCache(() => clock.seconds);
  const question = encodeQuery(WWW, TYPE.A);
  const message = emptyMessage();
  message.answer = [
    { name: WWW, type: TYPE.A, ttlSeconds: 300, rdata: addressRdata('192.0.2.1') },
    { name: WWW, type: TYPE.A, ttlSeconds: 60, rdata: addressRdata('192.0.2.2') },
  ];
  const octets = encodeMessage(message, question);
  return { clock, cache, question, octets, end: question.length - 11 };
}

describe('answers by the octets of their question', () => {
  test('are given with the id of who asks and the TTL that is left', () => {
    const { cache, clock, question, octets, end } = setUp();
    cache.remember(question, end, { octets, ttlSeconds: 300, lease });
    const again = encodeQuery(WWW, TYPE.A);
    again.writeUInt16BE(0x1234);
    for (const [seconds, ttls] of [
      [0.6, [299, 60]],
      [250, [50, 50]],
      [299.9, [0, 0]],
    ] as const) {
      clock.seconds = seconds;
      const known = cache.recall(again);
      assert.ok(known);
      const { id, answer } = readMessage(known.octets);
      assert.equal(id, 0x1234);
      assert.deepEqual(
        answer.map(({ ttlSeconds }) => ttlSeconds),
        ttls,
      );
      assert.deepEqual(known.lease, { ...lease, ttlSeconds: known.ttlSeconds });
      // It is the caller’s own: what is done to it changes nothing here.
      known.octets.fill(0);
    }
    clock.seconds = 300.5;
    assert.equal(cache.recall(again), undefined);
  });

  test('are of that question only: type, flags and letters count, and options are not kept', () => {
    const { cache, question, octets, end } = setUp();
    cache.remember(question, end, { octets, ttlSeconds: 300, lease });
    const others = [encodeQuery(WWW, TYPE.AAAA), encodeQuery(DomainName.parse('ww.example.'), TYPE.A)];
    const withoutCd = encodeQuery(WWW, TYPE.A);
    withoutCd.writeUInt16BE(0x0100, 2);
    const withOption = Buffer.concat([question, Buffer.from('000a0000', 'hex')]);
    for (const other of [...others, withoutCd, withOption, question.subarray(0, end), Buffer.alloc(1)])
      assert.equal(cache.recall(other), undefined);
    cache.remember(withOption, end, { octets, ttlSeconds: 300, lease });
    assert.equal(cache.recall(withOption), undefined);
    cache.remember(withoutCd, end, { octets, ttlSeconds: 0.5, lease });
    assert.equal(cache.recall(withoutCd), undefined);
  });

  test('are repeated by the responder with their lease; refusals and failures are not', async () => {
    const zone = new TestZone('example.').add('www.example.', TYPE.A, addressRdata('192.0.2.1'));
    const world = new TestWorld(new TestZone('.'), zone);
    world.tamper = (message, name) => {
      if (name.equals(DomainName.parse('broken.example.'))) message.authority = [];
    };
    const leases = new LeaseTable();
    const policy = { mayResolve: (name: string) => name !== 'denied.example', mayBind: () => true };
    const responder = new Responder({ validator: world.validator(), policy, leases });
    for (const name of ['www.example.', 'none.example.', 'denied.example.', 'broken.example.']) {
      const query = encodeQuery(DomainName.parse(name), TYPE.A);
      assert.equal(responder.repeat(query), undefined);
      const answer = await responder.respond(query, 'udp');
      assert.ok(answer);
      const isKept = name === 'www.example.' || name === 'none.example.';
      const repeated = responder.repeat(query);
      assert.equal(repeated !== undefined, isKept, name);
      if (repeated !== undefined) assert.equal(readMessage(repeated).rcode, readMessage(answer).rcode);
    }
    assert.deepEqual(leases.namesOf('192.0.2.1'), [{ name: 'www.example', dnssec: 'secure' }]);
    const twin = new Responder({ validator: world.validator(), policy, leases: new LeaseTable() });
    const query = encodeQuery(WWW, TYPE.A);
    await twin.respond(query, 'tcp');
    assert.equal(twin.repeat(query), undefined);
  });

  test('leave a lease where it was pushed out in between', async () => {
    const zone = new TestZone('example.').add('www.example.', TYPE.A, addressRdata('192.0.2.1'));
    const world = new TestWorld(new TestZone('.'), zone);
    const clock = { seconds: 0 };
    const leases = new LeaseTable({ monotonic: () => clock.seconds, floorSeconds: 1, graceSeconds: 0 });
    const policy = { mayResolve: () => true, mayBind: () => true };
    const responder = new Responder({ validator: world.validator(), policy, leases });
    const query = encodeQuery(WWW, TYPE.A);
    await responder.respond(query, 'udp');
    clock.seconds = 1_000_000;
    assert.deepEqual(leases.namesOf('192.0.2.1'), []);
    assert.ok(responder.repeat(query));
    assert.deepEqual(leases.namesOf('192.0.2.1'), [{ name: 'www.example', dnssec: 'secure' }]);
  });
});
