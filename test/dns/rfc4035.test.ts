import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseAnchors, TrustAnchors } from '../../guest/dns/anchors.ts';
import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { addressRdata, nameRdata, type TestMessage } from './encode.ts';
import { dsRdata, NOW, newKey } from './signer.ts';
import { TestWorld } from './world.ts';
import { TestZone, type ZoneOptions } from './zone.ts';

const ADDRESS = addressRdata('192.0.2.1');
const OTHER_ADDRESS = addressRdata('192.0.2.66');

function smallWorld(options: ZoneOptions = {}): { world: TestWorld; root: TestZone; zone: TestZone } {
  const root = new TestZone('.');
  const zone = new TestZone('example.', options);
  zone.add('www.example.', TYPE.A, ADDRESS, addressRdata('192.0.2.2'));
  zone.add('*.wild.example.', TYPE.A, ADDRESS);
  zone.add('deep.empty.example.', TYPE.A, ADDRESS);
  zone.add('alias.example.', TYPE.CNAME, nameRdata('www.example.'));
  return { world: new TestWorld(root, zone), root, zone };
}

describe('RFC 4035 section 5: a chain of trust', () => {
  for (const algorithm of [8, 10, 13, 14, 15, 16]) {
    for (const denial of ['nsec', 'nsec3', 'opt-out'] as const) {
      test(`algorithm ${algorithm}, ${denial}: data, no data, no name, wildcard`, async () => {
        const { world } = smallWorld({ algorithm, denial });
        // RFC 5155 section 9.2: what rests on an opt-out span is not secure.
        const weak = denial === 'opt-out' ? 'insecure' : 'secure';
        assert.equal(await world.summary('www.example.', TYPE.A), 'secure 0 1');
        assert.equal(await world.summary('alias.example.', TYPE.A), 'secure 0 2');
        assert.equal(await world.summary('www.example.', TYPE.AAAA), 'secure 0 0');
        assert.equal(await world.summary('empty.example.', TYPE.A), 'secure 0 0');
        assert.equal(await world.summary('none.example.', TYPE.A), `${weak} 3 0`);
        assert.equal(await world.summary('a.b.wild.example.', TYPE.A), `${weak} 0 1`);
        assert.equal(await world.summary('a.b.wild.example.', TYPE.AAAA), `${weak} 0 0`);
      });
    }
  }

  test('a name outside every anchor is indeterminate', async () => {
    const { world } = smallWorld();
    const anchors = new TrustAnchors(parseAnchors('other. DS 1 13 2 00ff', 'test'));
    assert.equal(await world.summary('www.example.', TYPE.A, { anchors }), 'indeterminate 0 1');
  });

  test('a negative anchor makes a zone insecure, and a deeper anchor ends its reach (RFC 7646)', async () => {
    const { world, zone } = smallWorld();
    world.tamper = spoilSignatures;
    const negative = new TrustAnchors([], [DomainName.parse('example.')]);
    assert.equal(await world.summary('www.example.', TYPE.A, { anchors: negative }), 'insecure 0 1');
    world.tamper = () => {};
    const [key] = zone.keys;
    assert.ok(key);
    const text = `example. DNSKEY 257 3 13 ${key.rdata.subarray(4).toString('base64')}`;
    const both = new TrustAnchors(parseAnchors(text, 'test'), [DomainName.parse('.')]);
    assert.equal(await world.summary('www.example.', TYPE.A, { anchors: both }), 'secure 0 1');
  });
});

describe('an alias whose DNAME a cache has lost (RFC 6672 section 3.1)', () => {
  function movedWorld(): TestWorld {
    const { world, zone } = smallWorld();
    zone.add('moved.example.', TYPE.DNAME, nameRdata('example.'));
    return world;
  }

  /** As a cache answers that holds the CNAME it made, and no longer the DNAME. */
  function loseDname(message: TestMessage, name: DomainName): void {
    if (!name.toString().endsWith('.moved.example.')) return;
    const isLost = ({ type, rdata }: TestMessage['answer'][number]): boolean =>
      type === TYPE.DNAME || (type === TYPE.RRSIG && rdata.readUInt16BE() === TYPE.DNAME);
    message.answer = message.answer.filter((record) => !isLost(record));
  }

  test('is proven by the DNAME, asked for by itself', async () => {
    const world = movedWorld();
    assert.equal(await world.summary('www.moved.example.', TYPE.A), 'secure 0 3');
    world.tamper = loseDname;
    assert.equal(await world.summary('www.moved.example.', TYPE.A), 'secure 0 3');
    assert.equal(await world.summary('www.moved.example.', TYPE.CNAME), 'secure 0 2');
  });

  test('leads where the DNAME says, whatever the alias said', async () => {
    const world = movedWorld();
    world.tamper = (message, name) => {
      loseDname(message, name);
      const rdata = nameRdata('deep.empty.example.');
      message.answer = message.answer.map((one) => (one.type === TYPE.CNAME ? { ...one, rdata } : one));
    };
    const { state, answers } = await world.ask('www.moved.example.', TYPE.A);
    assert.equal(state, 'secure');
    assert.equal(answers.at(-1)?.name.toString(), 'www.example.');
  });

  test('is bogus where there is none, and costs four questions at most', async () => {
    const { world } = smallWorld();
    const name = 'a.b.c.d.e.f.example.';
    world.tamper = (message, asked, type) => {
      if (asked.toString() !== name || type !== TYPE.A) return;
      const rdata = nameRdata('www.example.');
      message.rcode = 0;
      message.authority = [];
      message.answer = [{ name: asked, type: TYPE.CNAME, ttlSeconds: 60, rdata }];
    };
    const verdict = await world.ask(name, TYPE.A);
    assert.equal(verdict.state, 'bogus');
    assert.equal(verdict.code, 'ERR_DNS_STRIPPED');
    assert.equal(world.asked.filter((line) => line.endsWith(` ${TYPE.DNAME}`)).length, 4);
  });
});

describe('RFC 4035 section 5.2: delegations', () => {
  test('an unsigned delegation is insecure, and its aliases into signed zones stay so', async () => {
    for (const denial of ['nsec', 'nsec3', 'opt-out'] as const) {
      const { zone, root } = smallWorld({ denial });
      const plain = new TestZone('plain.example.', { signed: false });
      plain.add('www.plain.example.', TYPE.A, ADDRESS);
      plain.add('alias.plain.example.', TYPE.CNAME, nameRdata('www.example.'));
      const world = new TestWorld(root, zone, plain);
      assert.equal(await world.summary('www.plain.example.', TYPE.A), 'insecure 0 1', denial);
      assert.equal(await world.summary('alias.plain.example.', TYPE.A), 'insecure 0 2', denial);
      assert.equal(await world.summary('none.plain.example.', TYPE.A), 'insecure 3 0', denial);
    }
  });

  test('the DS of a delegation cannot be stripped, nor replaced by the child’s own denial', async () => {
    const { world, zone } = smallWorld();
    world.tamper = (message, name, type) => {
      if (type === TYPE.DS && name.equals(zone.name)) message.answer = [];
    };
    assert.equal(await world.summary('www.example.', TYPE.A), 'bogus 2 0');
    world.tamper = (message, name, type) => {
      if (type !== TYPE.DS || !name.equals(zone.name)) return;
      message.answer = [];
      message.authority = zone.denyType(zone.name);
    };
    assert.equal(await world.summary('www.example.', TYPE.A), 'bogus 2 0');
  });

  test('a key set counts only when the key that the DS names signed it', async () => {
    const { world, zone } = smallWorld();
    const [real] = zone.keys;
    assert.ok(real);
    const forger = newKey(13);
    zone.keys = [forger, real];
    zone.signingKeys = [forger];
    assert.equal(await world.summary('www.example.', TYPE.A), 'bogus 2 0');
  });

  test('SHA-1 beside SHA-256 does not count (RFC 4509 section 3), and alone it does', async () => {
    const { world, root, zone } = smallWorld();
    const [key] = zone.keys;
    assert.ok(key);
    root.remove('example.', TYPE.DS);
    root.add('example.', TYPE.DS, dsRdata(zone.name, key, 1));
    assert.equal(await world.summary('www.example.', TYPE.A), 'secure 0 1');
    const wrong = dsRdata(zone.name, key, 2);
    wrong.writeUInt8(wrong.readUInt8(10) ^ 1, 10);
    root.add('example.', TYPE.DS, wrong);
    assert.equal(await world.summary('www.example.', TYPE.A), 'bogus 2 0');
    root.remove('example.', TYPE.DS);
    root.add('example.', TYPE.DS, dsRdata(zone.name, key, 4));
    assert.equal(await world.summary('www.example.', TYPE.A), 'secure 0 1');
  });

  test('unknown algorithms make a zone insecure only when every DS has one (RFC 6840 section 5.2)', async () => {
    const { world, root, zone } = smallWorld();
    const [known] = root.find(zone.name, TYPE.DS) ?? [];
    assert.ok(known);
    const unknown = Buffer.from(known.rdata);
    unknown.writeUInt8(99, 2);
    root.add('example.', TYPE.DS, unknown);
    assert.equal(await world.summary('www.example.', TYPE.A), 'secure 0 1');
    root.remove('example.', TYPE.DS);
    root.add('example.', TYPE.DS, unknown);
    zone.signingKeys = [];
    assert.equal(await world.summary('www.example.', TYPE.A), 'insecure 0 1');
  });

  test('RSA with SHA-1 (5 and 7) is as good as unsigned (RFC 9905)', async () => {
    for (const algorithm of [5, 7]) {
      const { world, root, zone } = smallWorld();
      const [ds] = root.find(zone.name, TYPE.DS) ?? [];
      ds?.rdata.writeUInt8(algorithm, 2);
      assert.equal(await world.summary('www.example.', TYPE.A), 'insecure 0 1');
    }
  });

  test('failing to fetch DS or DNSKEY is bogus, never insecure', async () => {
    for (const failing of [TYPE.DS, TYPE.DNSKEY]) {
      const { world } = smallWorld();
      world.tamper = (message, name, type) => {
        if (type === failing && !name.isRoot) Object.assign(message, { rcode: 2, answer: [], authority: [] });
      };
      assert.equal(await world.summary('www.example.', TYPE.A), 'bogus 2 0');
    }
  });
});

describe('RFC 4035 section 5.3: signatures', () => {
  test('changed, added, removed and foreign records', async () => {
    const { world } = smallWorld();
    world.tamper = (message, _name, type) => {
      const [first] = message.answer;
      if (type === TYPE.A && first !== undefined) message.answer[0] = { ...first, rdata: OTHER_ADDRESS };
    };
    assert.equal(await world.summary('www.example.', TYPE.A), 'bogus 2 0');
    world.tamper = (message, _name, type) => {
      const [first] = message.answer;
      if (type === TYPE.A && first !== undefined) message.answer.push({ ...first, rdata: OTHER_ADDRESS });
    };
    assert.equal(await world.summary('www.example.', TYPE.A), 'bogus 2 0');
    world.tamper = (message, _name, type) => {
      if (type === TYPE.A) message.answer.shift();
    };
    assert.equal(await world.summary('www.example.', TYPE.A), 'bogus 2 0');
    // Twice the same record is once (RFC 2181 section 5), and what is about another name is not looked at.
    world.tamper = (message, _name, type) => {
      const [first] = message.answer;
      if (type !== TYPE.A || first === undefined) return;
      message.answer.unshift(first, {
        ...first,
        name: DomainName.parse('evil.example.'),
        rdata: OTHER_ADDRESS,
      });
    };
    const verdict = await world.ask('www.example.', TYPE.A);
    assert.equal(verdict.state, 'secure');
    assert.equal(verdict.answers[0]?.rdata.length, 2);
    assert.equal(verdict.answers.length, 1);
  });

  test('stripped signatures are told apart and the resolver is named', async () => {
    const { world } = smallWorld();
    world.tamper = (message) => {
      message.answer = message.answer.filter(({ type }) => type !== TYPE.RRSIG);
      message.authority = [];
    };
    const verdict = await world.ask('www.example.', TYPE.A);
    assert.equal(verdict.code, 'ERR_DNS_STRIPPED');
    assert.match(verdict.reason, /test resolver strips DNSSEC/);
  });

  test('period: expired, not yet valid, backwards, and across 2^32 (RFC 1982)', async () => {
    const outcome = async (inception: number, expiration: number, at = NOW): Promise<string> => {
      const { world, zone } = smallWorld();
      zone.signing = { inception, expiration };
      const { state, code } = await world.ask('www.example.', TYPE.A, { clock: () => at });
      return code ?? state;
    };
    assert.equal(await outcome(NOW - 100, NOW - 1), 'ERR_DNS_EXPIRED');
    assert.equal(await outcome(NOW + 1, NOW + 100), 'ERR_DNS_NOT_YET_VALID');
    assert.equal(await outcome(NOW + 100, NOW - 100), 'ERR_DNS_EXPIRED');
    assert.equal(await outcome(NOW, NOW), 'secure');
    assert.equal(await outcome(NOW - 2 ** 31 - 10, NOW + 100), 'ERR_DNS_EXPIRED');
  });

  test('a wrong clock is named as the likely cause when the anchor’s own keys are out of their period', async () => {
    const { world } = smallWorld();
    const verdict = await world.ask('www.example.', TYPE.A, { clock: () => NOW - 30 * 86_400 });
    assert.equal(verdict.code, 'ERR_DNS_NOT_YET_VALID');
    assert.match(verdict.reason, /the clock says 2023-10-15T.*is this clock right\?/);
  });

  test('an anchor that does not match says which keys it found', async () => {
    const { world } = smallWorld();
    const anchors = new TrustAnchors(parseAnchors(`. DS 12345 13 2 ${'ab'.repeat(32)}`, 'test'));
    const verdict = await world.ask('www.example.', TYPE.A, { anchors });
    assert.equal(verdict.code, 'ERR_DNS_ANCHOR');
    assert.match(verdict.reason, /12345 \(ECDSAP256SHA256\)\) matches none of the keys that are published/);
  });

  test('labels: more than the owner has, fewer than the signer has', async () => {
    for (const labels of [0, 3, 4, 255]) {
      const { world, zone } = smallWorld();
      zone.signing = { labels };
      const verdict = await world.ask('www.example.', TYPE.A);
      assert.equal(verdict.state, 'bogus', `labels ${labels}`);
    }
  });

  test('signers: a sibling, the parent, a child that is no zone', async () => {
    for (const signer of ['sibling.', '.', 'www.example.', 'le.']) {
      const { root, zone } = smallWorld();
      const sibling = new TestZone('sibling.');
      const world = new TestWorld(root, zone, sibling);
      world.tamper = (message, name, type) => {
        if (type !== TYPE.A || name.toString() !== 'www.example.') return;
        const data = message.answer.filter((record) => record.type === TYPE.A);
        const keys = sibling.keys.concat(zone.keys);
        sibling.signingKeys = keys;
        message.answer = [...data, ...sibling.sign(data, { signer: DomainName.parse(signer) })];
      };
      assert.equal(await world.summary('www.example.', TYPE.A), 'bogus 2 0', signer);
    }
  });

  test('the TTL is bounded by the original TTL and by what is left of the signature', async () => {
    const { world, zone } = smallWorld();
    zone.signing = { expiration: NOW + 50 };
    assert.equal((await world.ask('www.example.', TYPE.A)).ttlSeconds, 50);
    zone.signing = {};
    world.tamper = (message) => {
      message.answer = message.answer.map((record) => ({ ...record, ttlSeconds: 1_000_000 }));
    };
    assert.equal((await world.ask('www.example.', TYPE.A)).ttlSeconds, 3600);
  });

  test('keys that may not sign: no zone bit, revoked, another protocol', async () => {
    for (const spoil of [
      (rdata: Buffer) => rdata.writeUInt16BE(1, 0),
      (rdata: Buffer) => rdata.writeUInt16BE(257 | 0x80, 0),
      (rdata: Buffer) => rdata.writeUInt8(2, 2),
    ]) {
      const { root } = smallWorld();
      const zone = new TestZone('example.').add('www.example.', TYPE.A, ADDRESS);
      const [key] = zone.keys;
      assert.ok(key);
      spoil(key.rdata);
      const world = new TestWorld(root, zone);
      assert.equal(await world.summary('www.example.', TYPE.A), 'bogus 2 0');
    }
  });
});

function spoilSignatures(message: TestMessage): void {
  message.answer = message.answer.map((record) => {
    if (record.type !== TYPE.RRSIG) return record;
    const rdata = Buffer.from(record.rdata);
    rdata.writeUInt8(rdata.readUInt8(rdata.length - 1) ^ 1, rdata.length - 1);
    return { ...record, rdata };
  });
}

describe('an anchor below an unsigned zone', () => {
  const at = DomainName.parse('plain.');
  const forged = { name: at, type: TYPE.DNAME, ttlSeconds: 60, rdata: nameRdata('evil.') };

  function island(): { world: TestWorld; anchors: TrustAnchors } {
    const root = new TestZone('.');
    const plain = new TestZone('plain.', { signed: false });
    // Not below the DNAME, or it would lead to itself.
    const evil = new TestZone('evil.', { signed: false });
    evil.add('www.island.evil.', TYPE.A, OTHER_ADDRESS);
    const zone = new TestZone('island.plain.').add('www.island.plain.', TYPE.A, ADDRESS);
    const anchors = [root, zone].map(({ name, keys }) => {
      return { name, ds: [], keys: keys.map(({ rdata }) => rdata), negative: false };
    });
    return { world: new TestWorld(root, plain, evil, zone), anchors: new TrustAnchors(anchors) };
  }

  test('is not passed by an unsigned DNAME from above it', async () => {
    const { world, anchors } = island();
    assert.equal(await world.summary('www.island.plain.', TYPE.A, { anchors }), 'secure 0 1');
    assert.equal(await world.summary('www.island.evil.', TYPE.A, { anchors }), 'insecure 0 1');
    world.tamper = (message, name) => {
      if (name.toString() !== 'www.island.plain.') return;
      const rdata = nameRdata('www.island.evil.');
      message.answer = [forged, { name, type: TYPE.CNAME, ttlSeconds: 60, rdata }];
    };
    assert.equal(await world.summary('www.island.plain.', TYPE.A, { anchors }), 'bogus 2 0');
  });

  test('nor by one that is told of only when it is asked for', async () => {
    const { world, anchors } = island();
    world.tamper = (message, name, type) => {
      const rdata = nameRdata('www.island.evil.');
      if (type === TYPE.DNAME && name.equals(at)) message.answer = [forged];
      else if (name.toString() === 'www.island.plain.')
        message.answer = [{ name, type: TYPE.CNAME, ttlSeconds: 60, rdata }];
    };
    assert.equal(await world.summary('www.island.plain.', TYPE.A, { anchors }), 'bogus 2 0');
  });
});
