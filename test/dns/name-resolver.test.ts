import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ValidatingResolver } from '../../guest/dns/name-resolver.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { addressRdata, nameRdata } from './encode.ts';
import { TestWorld } from './world.ts';
import { TestZone } from './zone.ts';

function newWorld(): TestWorld {
  const zone = new TestZone('example.');
  zone.add('www.example.', TYPE.A, addressRdata('192.0.2.1'));
  zone.add('www.example.', TYPE.AAAA, Buffer.from('20010db8000000000000000000000001', 'hex'));
  zone.add('alias.example.', TYPE.CNAME, nameRdata('www.example.'));
  const unsigned = new TestZone('test.', { signed: false }).add(
    'www.test.',
    TYPE.A,
    addressRdata('192.0.2.9'),
  );
  return new TestWorld(new TestZone('.'), zone, unsigned);
}

test('both families with their state and chain', async () => {
  const resolver = new ValidatingResolver(newWorld().validator());
  assert.deepEqual(await resolver.resolve('alias.example'), {
    addresses: [
      { address: '192.0.2.1', ttlSeconds: 3600 },
      { address: '2001:db8::1', ttlSeconds: 3600 },
    ],
    dnssec: 'secure',
    chain: ['alias.example', 'www.example'],
    reason: '',
  });
  assert.equal((await resolver.resolve('www.test')).dnssec, 'insecure');
});

test('a bogus family is left out; when nothing is left the reason is told', async () => {
  const world = newWorld();
  world.tamper = (message, _name, type) => {
    if (type === TYPE.AAAA) message.answer = message.answer.filter((record) => record.type !== TYPE.RRSIG);
  };
  const { addresses, dnssec } = await new ValidatingResolver(world.validator()).resolve('www.example');
  assert.deepEqual(
    addresses.map(({ address }) => address),
    ['192.0.2.1'],
  );
  assert.equal(dnssec, 'secure');
  world.tamper = (message, _name, type) => {
    if (type === TYPE.A || type === TYPE.AAAA) message.answer = [];
  };
  const resolver = new ValidatingResolver(world.validator());
  const bogus = await resolver.resolve('www.example');
  assert.deepEqual([bogus.addresses, bogus.dnssec, bogus.code], [[], 'bogus', 'ERR_DNS_STRIPPED']);
  assert.match(bogus.reason, /www\.example/);
  await assert.rejects(resolver.resolve('none.test'), { code: 'ERR_RESOLVE_NOT_FOUND' });
});

test('an application that gives up is let go', async () => {
  const world = newWorld();
  world.exchange = () => new Promise(() => {});
  const resolver = new ValidatingResolver(world.validator());
  await assert.rejects(resolver.resolve('www.example', { signal: AbortSignal.timeout(10) }), {
    code: 'ERR_TRANSPORT_ABORTED',
  });
});
