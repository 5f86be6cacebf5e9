import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { keepMemorySmall } from '../../guest/disk/process-memory.ts';
import { ZONES_MAX_BYTES } from '../../guest/dns/chain.ts';
import { LEASES_MAX_BYTES, LeaseTable } from '../../guest/dns/leases.ts';
import { DomainName } from '../../guest/dns/name.ts';
import { JUDGED_MAX_BYTES } from '../../guest/dns/questioner.ts';
import { canonicalRdata } from '../../guest/dns/rdata.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { Validator } from '../../guest/dns/validator.ts';
import { nameRdata, type TestMessage, type TestRecord } from './encode.ts';
import { NOW, newKey } from './signer.ts';
import { TestWorld } from './world.ts';
import { TestZone } from './zone.ts';

keepMemorySmall();
setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const MIB = 1024 * 1024;
/** Under RFC 1035's 65,535 with question and OPT. */
const ANSWER_BYTES = 65_000;

/** What is alive: V8's heap and the memory of Buffers, all of each slab that a kept one was cut from. */
function heldBytes(): number {
  collect();
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

async function growthOf(work: () => Promise<unknown>): Promise<number> {
  const before = heldBytes();
  const kept = await work();
  const growth = heldBytes() - before;
  assert.ok(kept);
  return growth;
}

/** As many records as an answer can have, each as `make` says. */
function filled(make: (index: number) => Omit<TestRecord, 'ttlSeconds'>): TestRecord[] {
  const records: TestRecord[] = [];
  for (let sizeBytes = 0, index = 0; index < 4_000; index += 1) {
    const record = { ...make(index), ttlSeconds: 3600 };
    sizeBytes += record.name.key.length + 10 + record.rdata.length;
    if (sizeBytes > ANSWER_BYTES) break;
    records.push(record);
  }
  return records;
}

function uint32(value: number): Buffer {
  const octets = Buffer.alloc(4);
  octets.writeUInt32BE(value);
  return octets;
}

/** A signature that nobody checks, since its zone is not signed. */
function idleSignature(type: number, index: number): Buffer {
  const fixed = Buffer.alloc(14);
  fixed.writeUInt8(13, 0);
  return Buffer.concat([
    Buffer.from([0, type]),
    fixed,
    uint32(index).subarray(2),
    nameRdata('x.'),
    uint32(1),
  ]);
}

/** What a resolver, or a parent between, can put into an answer of an unsigned zone. */
const HOSTILE: Record<string, (message: TestMessage, name: DomainName) => void> = {
  'many addresses': (message, name) => {
    message.answer = filled((index) => ({ name, type: TYPE.A, rdata: uint32(index) }));
  },
  'many signatures': (message, name) => {
    const [address] = message.answer;
    const signed = filled((index) => ({ name, type: TYPE.RRSIG, rdata: idleSignature(TYPE.A, index) }));
    message.answer = [...(address ? [address] : []), ...signed];
  },
  'one signature of 60 KiB': (message, name) => {
    const rdata = Buffer.concat([idleSignature(TYPE.A, 0), Buffer.alloc(60 * 1024)]);
    message.answer.push({ name, type: TYPE.RRSIG, ttlSeconds: 3600, rdata });
  },
  'little that is wanted, and many other records': (message) => {
    message.additional = filled((index) => ({
      name: DomainName.parse(`${index}.`),
      type: 1000 + index,
      rdata: uint32(index),
    }));
  },
};

describe('answers of 64 KiB to many names', () => {
  const CACHE_BYTES = MIB;
  const NAME_COUNT = 100;
  for (const [title, spoil] of Object.entries(HOSTILE)) {
    test(`${title}: the cache holds no more than its bound`, async () => {
      const zone = new TestZone('example.', { signed: false });
      const world = new TestWorld(new TestZone('.'), zone);
      for (let index = 0; index < NAME_COUNT; index += 1)
        zone.add(`n${index}.example.`, TYPE.A, uint32(index));
      world.tamper = (message, name, type) => {
        if (type === TYPE.A) spoil(message, name);
      };
      const resolvers = [{ name: world.name, ways: [world] }];
      const options = { resolvers, anchors: world.anchors(), clock: () => NOW, cacheBytes: CACHE_BYTES };
      const warm = new Validator(options);
      await warm.resolve(DomainName.parse('n0.example.'), TYPE.A);
      const validator = new Validator(options);
      const growth = await growthOf(async () => {
        for (let index = 0; index < NAME_COUNT; index += 1) {
          const verdict = await validator.resolve(DomainName.parse(`n${index}.example.`), TYPE.A);
          assert.equal(verdict.state, 'insecure');
        }
        return validator;
      });
      assert.ok(validator.cache.sizeBytes <= CACHE_BYTES);
      assert.ok(growth < CACHE_BYTES + 3 * MIB, `${(growth / MIB).toFixed(1)} MiB`);
    });
  }

  test('while their keys are waited for: past the bound they are given up, and the next ones are judged again', async () => {
    const zone = new TestZone('example.', { signed: false });
    const world = new TestWorld(new TestZone('.'), zone);
    const COUNT = 100;
    for (let index = 0; index < COUNT; index += 1) zone.add(`n${index}.example.`, TYPE.A, uint32(index));
    world.tamper = (message, name, type) => {
      if (type === TYPE.A) message.answer = filled((index) => ({ name, type: TYPE.A, rdata: uint32(index) }));
    };
    const delay: { over: () => void } = { over: () => {} };
    const waiting = new Promise<void>((resolve) => {
      delay.over = resolve;
    });
    const exchange = world.exchange.bind(world);
    let answeredCount = 0;
    world.exchange = async (query) => {
      const octets = await exchange(query);
      if (octets.length < 10_000) await waiting;
      else answeredCount += 1;
      return octets;
    };
    const validator = world.validator();
    const verdicts: Promise<unknown>[] = [];
    const growth = await growthOf(async () => {
      for (let index = 0; index < COUNT; index += 1)
        verdicts.push(validator.resolve(DomainName.parse(`n${index}.example.`), TYPE.A));
      while (answeredCount < COUNT) await new Promise((resolve) => setImmediate(resolve));
      await new Promise((resolve) => setImmediate(resolve));
      return verdicts;
    });
    assert.ok(growth < JUDGED_MAX_BYTES + 4 * MIB, `${(growth / MIB).toFixed(1)} MiB`);
    delay.over();
    const all = (await Promise.all(verdicts)) as { state: string; code?: string }[];
    const given = all.filter(({ state }) => state === 'insecure');
    const refused = all.filter(({ code }) => code === 'ERR_DNS_LIMIT');
    assert.ok(given.length > 10, String(given.length));
    assert.equal(given.length + refused.length, COUNT);
    assert.ok(refused.length > 0);
    zone.add('later.example.', TYPE.A, uint32(1));
    assert.equal((await validator.resolve(DomainName.parse('later.example.'), TYPE.A)).state, 'insecure');
  });
});

test('thousands of small names: the cache counts at least what it holds, and that is little', async () => {
  const COUNT = 4_000;
  const zone = new TestZone('example.', { signed: false }).add('*.example.', TYPE.A, uint32(1));
  const world = new TestWorld(new TestZone('.'), zone);
  world.tamper = (message, name, type) => {
    if (type === TYPE.A) message.answer = [{ name, type, ttlSeconds: 3600, rdata: uint32(1) }];
  };
  const ask = async (validator: Validator): Promise<Validator> => {
    for (let index = 0; index < COUNT; index += 1)
      await validator.resolve(DomainName.parse(`n${index}.example.`), TYPE.A);
    world.asked.length = 0;
    return validator;
  };
  // Compiled code and what it learns would be counted else.
  await ask(world.validator());
  const validator = world.validator();
  const growth = await growthOf(() => ask(validator));
  const { count, sizeBytes } = validator.cache;
  assert.equal(count, COUNT);
  assert.ok(growth < sizeBytes + MIB, `${growth} for ${sizeBytes}`);
  assert.ok(sizeBytes < 400 * COUNT, String(sizeBytes));
});

test('zones that publish 60 KiB of keys: what is known of zones keeps its bound', async () => {
  const ZONE_COUNT = 60;
  const world = new TestWorld(new TestZone('.'));
  const key = newKey(15);
  const idle = Array.from({ length: 1_600 }, (_, index) => {
    const rdata = Buffer.from(key.rdata);
    rdata.writeUInt32BE(index + 1, 8);
    return rdata;
  });
  const zones = Array.from({ length: ZONE_COUNT }, (_, index) => {
    const zone = new TestZone(`z${index}.`, { algorithm: 15 });
    return zone.add(`www.z${index}.`, TYPE.A, uint32(index));
  });
  const big = new TestWorld(world.top, ...zones);
  for (const zone of zones) {
    const [own] = zone.keys;
    assert.ok(own);
    // Delegated with its own key alone.
    zone.signingKeys = [own];
    const plain = zone.sign.bind(zone);
    zone.sign = (rrset, options) => {
      const keys = zone.keys;
      zone.keys = [own];
      const signed = plain(rrset, options);
      zone.keys = keys;
      return signed;
    };
    zone.keys = [own, ...idle.map((rdata) => ({ ...own, rdata }))];
  }
  const validator = big.validator();
  const ask = async (from: number, to: number): Promise<Validator> => {
    for (let index = from; index < to; index += 1) {
      const verdict = await validator.resolve(DomainName.parse(`www.z${index}.`), TYPE.A);
      assert.equal(verdict.state, 'secure', verdict.reason);
    }
    return validator;
  };
  const growth = await growthOf(() => ask(0, ZONE_COUNT));
  assert.ok(growth < ZONES_MAX_BYTES, `${(growth / MIB).toFixed(1)} MiB`);
});

test('the longest aliases there can be: leases keep their bound, and the newest lives', async () => {
  const leases = new LeaseTable();
  const long = 'x'.repeat(1_000);
  const growth = await growthOf(async () => {
    for (let index = 0; index < 4_000; index += 1) {
      const name = `n${index}.test`;
      const chain = [name, ...Array.from({ length: 12 }, (_, hop) => `${hop}.${index}.${long}`.slice(1))];
      const addresses = [`2001:db8::${index.toString(16)}`];
      leases.grant({ name, chain, addresses, ttlSeconds: 60, dnssec: 'insecure' });
    }
    return leases;
  });
  assert.ok(growth < LEASES_MAX_BYTES, `${(growth / MIB).toFixed(1)} MiB`);
  assert.ok(leases.count > 500 && leases.count < 4_000);
  assert.equal(leases.namesOf(`2001:db8::${(3_999).toString(16)}`).length, 1);
});

test('rdata that is over 64 KiB with its names written out is malformed', () => {
  const name = nameRdata(`${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}.`);
  const start = 12 + name.length;
  const fixed = idleSignature(TYPE.A, 0).subarray(0, 18);
  const rdata = (restBytes: number): Buffer =>
    Buffer.concat([Buffer.alloc(12), name, fixed, Buffer.from([0xc0, 12]), Buffer.alloc(restBytes)]);
  const largest = rdata(0xffff - 18 - name.length);
  assert.equal(canonicalRdata(largest, TYPE.RRSIG, start, largest.length).length, 0xffff);
  const larger = rdata(0xffff - 18 - name.length + 1);
  assert.throws(() => canonicalRdata(larger, TYPE.RRSIG, start, larger.length), /with its names written out/);
});
