import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { keyTag } from '../../guest/dns/keys.ts';
import { DNS_LIMITS } from '../../guest/dns/limits.ts';
import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { addressRdata, nameRdata, type TestRecord } from './encode.ts';
import { dsRdata, newKey, type TestKey } from './signer.ts';
import { TestWorld } from './world.ts';
import { TestZone } from './zone.ts';

const ADDRESS = addressRdata('192.0.2.1');

/** Another Ed25519 key with the tag of the one given: any 32 octets are a key, and two of them set the sum. */
function colliding(key: TestKey, seed: number): TestKey {
  const rdata = Buffer.from(key.rdata);
  for (let at = 4; at < 34; at += 1) rdata.writeUInt8((rdata.readUInt8(at) * 7 + seed * 13 + at) & 0xff, at);
  for (let word = 0; word < 0x10000; word += 1) {
    rdata.writeUInt16BE(word, 34);
    if (keyTag(rdata) === key.keyTag) return { ...key, rdata };
  }
  throw new Error('some word gives the tag');
}

function wrongSignatures(records: readonly TestRecord[], count: number): TestRecord[] {
  const rrsig = records.find(({ type }) => type === TYPE.RRSIG);
  if (rrsig === undefined) return [];
  return Array.from({ length: count }, (_, index) => {
    const rdata = Buffer.from(rrsig.rdata);
    rdata.writeUInt32BE(index + 1, rdata.length - 4);
    return { ...rrsig, rdata };
  });
}

describe('work is bounded by count (KeyTrap, CVE-2023-50387)', () => {
  test('many signatures over one RRset', async () => {
    const world = new TestWorld(
      new TestZone('.'),
      new TestZone('example.').add('www.example.', TYPE.A, ADDRESS),
    );
    world.tamper = (message, _name, type) => {
      if (type === TYPE.A)
        message.answer = [
          ...message.answer.filter((one) => one.type === TYPE.A),
          ...wrongSignatures(message.answer, 300),
        ];
    };
    const { verdict, work } = await world.account('www.example.', TYPE.A);
    assert.equal(verdict.code, 'ERR_DNS_LIMIT');
    assert.match(verdict.reason, /more than 4 signatures/);
    // Two key sets and a DS before it, then four and no more.
    assert.equal(work.verifications, 3 + DNS_LIMITS.signaturesPerRrset);
  });

  test('many keys of one tag', async () => {
    const zone = new TestZone('example.', { algorithm: 15 }).add('www.example.', TYPE.A, ADDRESS);
    const [key] = zone.keys;
    assert.ok(key);
    zone.keys.push(...Array.from({ length: 40 }, (_, index) => colliding(key, index)));
    zone.signingKeys = [key];
    const root = new TestZone('.');
    const world = new TestWorld(root, zone);
    root.remove('example.', TYPE.DS);
    root.add('example.', TYPE.DS, dsRdata(zone.name, key));
    world.tamper = (message, _name, type) => {
      if (type === TYPE.A)
        message.answer = [
          ...message.answer.filter((one) => one.type === TYPE.A),
          ...wrongSignatures(message.answer, 100),
        ];
    };
    const { verdict, work } = await world.account('www.example.', TYPE.A);
    assert.equal(verdict.code, 'ERR_DNS_LIMIT');
    assert.ok(work.verifications <= 3 + DNS_LIMITS.keysPerTag, String(work.verifications));
  });

  test('two keys that share a tag by chance both count', async () => {
    const zone = new TestZone('example.', { algorithm: 15 }).add('www.example.', TYPE.A, ADDRESS);
    const [key] = zone.keys;
    assert.ok(key);
    zone.keys = [key, colliding(key, 1)];
    zone.signingKeys = [key];
    const world = new TestWorld(new TestZone('.'), zone);
    assert.equal(await world.summary('www.example.', TYPE.A), 'secure 0 1');
    zone.keys.reverse();
    zone.sign = (rrset, options) =>
      TestZone.prototype.sign.call(Object.assign(Object.create(zone), { keys: [key] }), rrset, options);
    assert.equal(await world.summary('www.example.', TYPE.A), 'secure 0 1');
  });

  test('many DS records that name one key', async () => {
    const root = new TestZone('.');
    const zone = new TestZone('example.').add('www.example.', TYPE.A, ADDRESS);
    const world = new TestWorld(root, zone);
    const [key] = zone.keys;
    assert.ok(key);
    root.remove('example.', TYPE.DS);
    for (let index = 0; index < 50; index += 1) {
      const ds = dsRdata(zone.name, key);
      ds.writeUInt32BE(index, ds.length - 4);
      root.add('example.', TYPE.DS, ds);
    }
    const { verdict, work } = await world.account('www.example.', TYPE.A);
    assert.match(verdict.reason, /more than 8 DS records/);
    assert.equal(work.verifications, 2);
  });

  test('a question stops at its verifications, over all that it looks at', async () => {
    const zone = new TestZone('example.');
    for (let type = 1000; type < 1100; type += 1) zone.add('www.example.', type, Buffer.from([1]));
    const world = new TestWorld(new TestZone('.'), zone);
    world.tamper = (message, name, type) => {
      if (type !== TYPE.ANY) return;
      message.answer = Array.from(
        { length: 100 },
        (_, index) => zone.answer(name, 1000 + index).answer,
      ).flat();
    };
    const { verdict, work } = await world.account('www.example.', TYPE.ANY);
    assert.equal(verdict.code, 'ERR_DNS_LIMIT');
    assert.equal(work.verifications, DNS_LIMITS.verifications);
  });

  test('a bad answer that is asked again is not verified again', async () => {
    const zone = new TestZone('example.').add('www.example.', TYPE.A, ADDRESS);
    const world = new TestWorld(new TestZone('.'), zone);
    world.tamper = (message, _name, type) => {
      if (type === TYPE.A)
        message.answer = [
          ...message.answer.filter((one) => one.type === TYPE.A),
          ...wrongSignatures(message.answer, 1),
        ];
    };
    const { verdict, work } = await world.account('www.example.', TYPE.A);
    assert.equal(verdict.code, 'ERR_DNS_BOGUS');
    assert.equal(work.verifications, 4);
  });
});

describe('work is bounded by count (NSEC3, CVE-2023-50868)', () => {
  test('deep names in a zone with many iterations', async () => {
    const zone = new TestZone('example.', { denial: 'nsec3', iterations: 150 });
    const world = new TestWorld(new TestZone('.'), zone);
    const { verdict, work } = await world.account(`${'a.'.repeat(120)}example.`, TYPE.A);
    assert.equal(verdict.code, 'ERR_DNS_LIMIT');
    assert.ok(work.nsec3Rounds <= DNS_LIMITS.nsec3Rounds + 151, String(work.nsec3Rounds));
  });
});

describe('walks are bounded', () => {
  test('aliases one after another', async () => {
    const zone = new TestZone('example.');
    for (let hop = 0; hop < 40; hop += 1)
      zone.add(`a${hop}.example.`, TYPE.CNAME, nameRdata(`a${hop + 1}.example.`));
    zone.add('a40.example.', TYPE.A, ADDRESS);
    const world = new TestWorld(new TestZone('.'), zone);
    const { verdict, work } = await world.account('a0.example.', TYPE.A);
    assert.equal(verdict.code, 'ERR_DNS_LIMIT');
    assert.match(verdict.reason, /more than 12 aliases/);
    assert.ok(work.verifications <= 3 + DNS_LIMITS.chainHops + 1);
    assert.equal(await world.summary('a30.example.', TYPE.A), 'secure 0 11');
  });

  test('aliases in a circle end where they began', async () => {
    const zone = new TestZone('example.');
    zone
      .add('a.example.', TYPE.CNAME, nameRdata('b.example.'))
      .add('b.example.', TYPE.CNAME, nameRdata('a.example.'));
    const world = new TestWorld(new TestZone('.'), zone);
    assert.equal(await world.summary('a.example.', TYPE.A), 'secure 0 2');
  });

  test('a deep name without signatures asks for a bounded number of delegations', async () => {
    const zone = new TestZone('example.').add('www.example.', TYPE.A, ADDRESS);
    const world = new TestWorld(new TestZone('.'), zone);
    const deep = DomainName.parse(`${'a.'.repeat(120)}example.`);
    world.tamper = (message, name, type) => {
      if (type !== TYPE.A) return;
      message.rcode = 0;
      message.authority = [];
      message.answer = [{ name, type: TYPE.A, ttlSeconds: 60, rdata: ADDRESS }];
    };
    const { verdict, work } = await world.account(deep.toString(), TYPE.A);
    assert.equal(verdict.state, 'bogus');
    assert.ok(work.upstreamQuestions <= DNS_LIMITS.upstreamQuestions);
    assert.ok(work.verifications <= DNS_LIMITS.verifications);
  });
});

describe('what is known is kept', () => {
  test('equal questions at one time share one walk, and keys are fetched once', async () => {
    const zone = new TestZone('example.')
      .add('www.example.', TYPE.A, ADDRESS)
      .add('ftp.example.', TYPE.A, ADDRESS);
    const world = new TestWorld(new TestZone('.'), zone);
    const validator = world.validator();
    const names = ['www.example.', 'www.example.', 'www.example.', 'ftp.example.'].map((text) =>
      DomainName.parse(text),
    );
    await Promise.all(names.map((name) => validator.resolve(name, TYPE.A)));
    await validator.resolve(DomainName.parse('www.example.'), TYPE.A);
    const counts = new Map<string, number>();
    for (const question of world.asked) counts.set(question, (counts.get(question) ?? 0) + 1);
    assert.deepEqual(
      [...counts.values()].filter((count) => count > 1),
      [],
    );
    assert.equal(world.asked.length, 5);
  });

  test('a key that was rolled over early is fetched again, once it has been known for a while', async () => {
    let now = 1_700_000_000;
    const root = new TestZone('.');
    const zone = new TestZone('example.')
      .add('www.example.', TYPE.A, ADDRESS)
      .add('ftp.example.', TYPE.A, ADDRESS);
    const world = new TestWorld(root, zone);
    const validator = world.validator({ clock: () => now });
    assert.equal((await validator.resolve(DomainName.parse('www.example.'), TYPE.A)).state, 'secure');
    zone.keys = [newKey(13)];
    zone.signingKeys = zone.keys;
    world.delegate(zone);
    assert.equal((await validator.resolve(DomainName.parse('ftp.example.'), TYPE.A)).state, 'bogus');
    now += 60;
    assert.equal((await validator.resolve(DomainName.parse('ftp.example.'), TYPE.A)).state, 'secure');
  });
});
