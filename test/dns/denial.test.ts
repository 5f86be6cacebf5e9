import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DNS_LIMITS, Work } from '../../guest/dns/limits.ts';
import { DomainName } from '../../guest/dns/name.ts';
import { denyByNsec, type Nsec, parseNsec } from '../../guest/dns/nsec.ts';
import { Nsec3Chain, parseNsec3 } from '../../guest/dns/nsec3.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { addressRdata, bitmapRdata, nameRdata, numbers } from './encode.ts';
import { TestWorld } from './world.ts';
import { base32hex, TestZone } from './zone.ts';

const ADDRESS = addressRdata('192.0.2.1');
const zone = DomainName.parse('example.');

function nsec(owner: string, next: string, ...types: number[]): Nsec | undefined {
  const rdata = Buffer.concat([nameRdata(next), bitmapRdata([...types, TYPE.NSEC, TYPE.RRSIG])]);
  return parseNsec(
    { name: DomainName.parse(owner), type: TYPE.NSEC, ttlSeconds: 300, rdata: [rdata], signatures: [] },
    zone,
  );
}

function deny(name: string, type: number, nameError: boolean, ...records: (Nsec | undefined)[]): string {
  const usable = records.filter((record) => record !== undefined);
  return denyByNsec(usable, zone, DomainName.parse(name), type, nameError).kind;
}

describe('NSEC (RFC 4035 section 5.4, RFC 6840 section 4)', () => {
  const apex = nsec('example.', 'a.example.', TYPE.SOA, TYPE.NS);

  test('a name error needs the name and the wildcard at the closest encloser covered', () => {
    const cover = nsec('a.example.', 'z.example.', TYPE.A);
    assert.equal(deny('m.example.', TYPE.A, true, cover, apex), 'nxdomain');
    assert.equal(deny('m.example.', TYPE.A, true, cover), 'unproven');
    assert.equal(deny('m.example.', TYPE.A, true, apex), 'unproven');
    const wildcard = nsec('*.example.', 'b.example.', TYPE.TXT);
    assert.equal(
      deny('m.example.', TYPE.A, true, nsec('b.example.', 'z.example.', TYPE.A), wildcard),
      'unproven',
    );
    assert.equal(
      deny('m.example.', TYPE.A, false, nsec('b.example.', 'z.example.', TYPE.A), wildcard),
      'nodata',
    );
    assert.equal(
      deny('m.example.', TYPE.TXT, false, nsec('b.example.', 'z.example.', TYPE.A), wildcard),
      'unproven',
    );
  });

  test('the wildcard of a higher name does not deny where the closest encloser is lower', () => {
    const cover = nsec('a.m.example.', 'z.m.example.', TYPE.A);
    const above = nsec('*.example.', 'a.example.', TYPE.TXT);
    assert.equal(deny('k.m.example.', TYPE.A, false, cover, above), 'unproven');
    assert.equal(deny('k.m.example.', TYPE.A, true, cover, apex), 'unproven');
  });

  test('the last record reaches to the end of the zone, and no further', () => {
    const last = nsec('x.example.', 'example.', TYPE.A);
    assert.equal(deny('y.example.', TYPE.A, true, last, apex), 'nxdomain');
    assert.equal(deny('b.example.', TYPE.A, true, last, apex), 'unproven');
    assert.equal(
      denyByNsec(
        [last].filter((one) => one !== undefined),
        zone,
        DomainName.parse('zz.'),
        TYPE.A,
        true,
      ).kind,
      'unproven',
    );
  });

  test('spans that prove nothing: next name outside the zone, backwards, no width', () => {
    assert.equal(nsec('a.example.', 'zzz.', TYPE.A), undefined);
    assert.equal(nsec('a.example.', 'xexample.', TYPE.A), undefined);
    assert.equal(nsec('m.example.', 'b.example.', TYPE.A), undefined);
    assert.equal(nsec('m.example.', 'm.example.', TYPE.A), undefined);
    // At the apex it means that the zone has no other name.
    assert.ok(nsec('example.', 'example.', TYPE.SOA, TYPE.NS));
  });

  test('a record from above a zone cut denies nothing but DS (RFC 6840 section 4.1)', () => {
    const cut = nsec('sub.example.', 'z.example.', TYPE.NS);
    assert.equal(deny('sub.example.', TYPE.DS, false, cut), 'nodata');
    assert.equal(deny('sub.example.', TYPE.A, false, cut), 'unproven');
    assert.equal(deny('www.sub.example.', TYPE.A, true, cut, apex), 'unproven');
    const dname = nsec('sub.example.', 'z.example.', TYPE.DNAME);
    assert.equal(deny('www.sub.example.', TYPE.A, true, dname, apex), 'unproven');
    // And one from below it, with the SOA, does not deny the DS.
    assert.equal(
      deny('sub.example.', TYPE.DS, false, nsec('sub.example.', 'z.example.', TYPE.NS, TYPE.SOA)),
      'unproven',
    );
  });

  test('a CNAME at the name is data of every type', () => {
    assert.equal(deny('a.example.', TYPE.A, false, nsec('a.example.', 'z.example.', TYPE.CNAME)), 'unproven');
  });

  test('a name that others are below exists: no data, never a name error', () => {
    const cover = nsec('a.example.', 'x.m.example.', TYPE.A);
    assert.equal(deny('m.example.', TYPE.A, false, cover), 'nodata');
    assert.equal(deny('m.example.', TYPE.A, true, cover, apex), 'nodata');
  });

  test('malformed records are none', () => {
    const rrset = (rdata: Buffer) => ({
      name: zone,
      type: TYPE.NSEC,
      ttlSeconds: 1,
      rdata: [rdata],
      signatures: [],
    });
    for (const bitmap of ['0021', '000000', '010140000140', '0001', '000140ff']) {
      const rdata = Buffer.concat([nameRdata('a.example.'), Buffer.from(bitmap, 'hex')]);
      assert.equal(parseNsec(rrset(rdata), zone), undefined, bitmap);
    }
    assert.equal(parseNsec(rrset(Buffer.from([5, 1])), zone), undefined);
  });
});

describe('wildcards (RFC 4035 section 5.3.4, RFC 5155 section 8.8)', () => {
  for (const denial of ['nsec', 'nsec3'] as const) {
    test(`${denial}: an expansion is bogus without its proof, and under a name that a closer wildcard governs`, async () => {
      const example = new TestZone('example.', { denial });
      example.add('*.example.', TYPE.A, ADDRESS).add('*.near.example.', TYPE.A, addressRdata('192.0.2.7'));
      const world = new TestWorld(new TestZone('.'), example);
      assert.equal(await world.summary('a.example.', TYPE.A), 'secure 0 1');
      world.tamper = (message, _name, type) => {
        if (type === TYPE.A) message.authority = [];
      };
      assert.equal(await world.summary('a.example.', TYPE.A), 'bogus 2 0');
      const replayed = example.answer(DomainName.parse('a.example.'), TYPE.A);
      const own = example.answer(DomainName.parse('b.near.example.'), TYPE.A);
      world.tamper = (message, name, type) => {
        if (type !== TYPE.A) return;
        message.answer = replayed.answer.map((record) => ({ ...record, name }));
        message.authority = [...replayed.authority, ...own.authority];
      };
      assert.equal(await world.summary('b.near.example.', TYPE.A), 'bogus 2 0');
    });
  }

  test('an NSEC that a wildcard made proves nothing of its owner (CVE-2017-15105)', async () => {
    const example = new TestZone('example.');
    example.add('*.example.', TYPE.TXT, Buffer.from('\x01x', 'latin1')).add('www.example.', TYPE.A, ADDRESS);
    const world = new TestWorld(new TestZone('.'), example);
    const wildcard = DomainName.parse('*.example.');
    const made = example.denyType(wildcard);
    world.tamper = (message, name, type) => {
      if (type !== TYPE.A) return;
      message.answer = [];
      message.authority = made.map((record) => ({ ...record, name }));
    };
    assert.equal(await world.summary('www.example.', TYPE.A), 'bogus 2 0');
  });
});

describe('NSEC3 (RFC 5155)', () => {
  const salt = Buffer.from('aabbccdd', 'hex');
  const parent = DomainName.parse('example.');
  const record = (
    label: string,
    options: { flags?: number; algorithm?: number; next?: Buffer; iterations?: number } = {},
  ) => {
    const { flags = 0, algorithm = 1, next = Buffer.alloc(20, 0xff), iterations = 12 } = options;
    const head = numbers([algorithm, 1], [flags, 1], [iterations, 2], [salt.length, 1]);
    const rdata = Buffer.concat([head, salt, Buffer.from([next.length]), next, bitmapRdata([TYPE.A])]);
    return parseNsec3(
      {
        name: DomainName.parse(`${label}.example.`),
        type: TYPE.NSEC3,
        ttlSeconds: 1,
        rdata: [rdata],
        signatures: [],
      },
      parent,
    );
  };
  const work = (): Work => new Work(DNS_LIMITS);

  test('the hashes of appendix A', () => {
    const hashes: Record<string, string> = {
      'example.': '0p9mhaveqvm6t7vbl5lop2u3t2rp3tom',
      'a.example.': '35mthgpgcu1qg68fab165klnsnk3dpvl',
      'ai.example.': 'gjeqe526plbf1g8mklp59enfd789njgi',
      'ns1.example.': '2t7b4g4vsa5smi47k61mv5bv1a22bojr',
      'x.y.w.example.': '2vptu5timamqttgl4luu9kg21e0aor3s',
      '*.w.example.': 'r53bq7cc2uvmubfu5ocmm6pers9tk9en',
    };
    for (const [name, label] of Object.entries(hashes)) {
      const one = record(label);
      assert.ok(one);
      const chain = new Nsec3Chain(parent, [one], work());
      assert.ok(chain.matching(DomainName.parse(name)), name);
    }
  });

  test('records to be ignored: unknown flags or hash, wrong lengths (section 8.2)', () => {
    const label = '0p9mhaveqvm6t7vbl5lop2u3t2rp3tom';
    assert.equal(record(label, { flags: 2 }), undefined);
    assert.equal(record(label, { algorithm: 2 }), undefined);
    assert.equal(record(label, { next: Buffer.alloc(19) }), undefined);
    assert.equal(record('0p9mhaveqvm6t7vbl5lop2u3t2rp3to'), undefined);
    assert.equal(record('wwwmhaveqvm6t7vbl5lop2u3t2rp3tom'), undefined);
  });

  test('a proof is not put together from chains with different parameters', () => {
    const [one, other] = [
      record('0p9mhaveqvm6t7vbl5lop2u3t2rp3tom'),
      record('35mthgpgcu1qg68fab165klnsnk3dpvl', { iterations: 11 }),
    ];
    assert.ok(one && other);
    assert.equal(new Nsec3Chain(parent, [one, other], work()).obstacle()?.kind, 'unproven');
  });

  test('iterations above the limit are insecure, at it they are checked (RFC 9276)', async () => {
    for (const [iterations, expected] of [
      [150, 'secure 3 0'],
      [151, 'insecure 3 0'],
      [2500, 'insecure 3 0'],
    ] as const) {
      const example = new TestZone('example.', { denial: 'nsec3', iterations });
      const world = new TestWorld(new TestZone('.'), example);
      const { verdict, work: account } = await world.account('none.example.', TYPE.A);
      assert.equal(`${verdict.state} ${verdict.rcode} ${verdict.answers.length}`, expected);
      assert.ok(account.nsec3Rounds <= DNS_LIMITS.nsec3Rounds);
      if (iterations > 150) assert.equal(account.nsec3Rounds, 0);
    }
  });

  test('each record of a name error is needed', async () => {
    const example = new TestZone('example.', { denial: 'nsec3' });
    for (const name of ['a', 'b', 'c', 'd', 'e', 'f']) example.add(`${name}.example.`, TYPE.A, ADDRESS);
    const world = new TestWorld(new TestZone('.'), example);
    const whole = example.answer(DomainName.parse('none.example.'), TYPE.A);
    const owners = [
      ...new Set(whole.authority.filter(({ type }) => type === TYPE.NSEC3).map(({ name }) => name.key)),
    ];
    assert.equal(await world.summary('none.example.', TYPE.A), 'secure 3 0');
    for (const left of owners) {
      world.tamper = (message, _name, type) => {
        if (type === TYPE.A) message.authority = message.authority.filter(({ name }) => name.key !== left);
      };
      assert.equal(await world.summary('none.example.', TYPE.A), 'bogus 2 0');
    }
  });

  test('no DS under opt-out is insecure; without opt-out the same records prove nothing', async () => {
    for (const [denial, expected] of [
      ['opt-out', 'insecure 0 1'],
      ['nsec3', 'bogus 2 0'],
    ] as const) {
      const example = new TestZone('example.', { denial });
      const plain = new TestZone('plain.example.', { signed: false }).add(
        'www.plain.example.',
        TYPE.A,
        ADDRESS,
      );
      const world = new TestWorld(new TestZone('.'), example, plain);
      if (denial === 'nsec3') {
        // The records of a zone that does not know the delegation.
        const without = new TestZone('example.', { denial });
        without.keys = example.keys;
        without.signingKeys = example.keys;
        world.tamper = (message, name, type) => {
          if (type === TYPE.DS && name.toString() === 'plain.example.') {
            message.authority = without.answer(DomainName.parse('other.example.'), TYPE.DS).authority;
          }
        };
      }
      assert.equal(await world.summary('www.plain.example.', TYPE.A), expected);
    }
  });

  test('the owner label is read as RFC 4648 section 7 writes it', () => {
    assert.equal(base32hex(Buffer.alloc(20, 0xff)), 'v'.repeat(32));
  });
});

describe('a delegation that a server answers wrongly for', () => {
  test('a longer name settles it, and when nothing does it is bogus', async () => {
    const example = new TestZone('example.');
    const plain = new TestZone('plain.empty.example.', { signed: false });
    plain.add('www.plain.empty.example.', TYPE.A, ADDRESS);
    const world = new TestWorld(new TestZone('.'), example, plain);
    assert.equal(await world.summary('www.plain.empty.example.', TYPE.A), 'insecure 0 1');
    const unproven = (...names: string[]): void => {
      world.tamper = (message, name, type) => {
        if (type === TYPE.DS && names.includes(name.toString())) message.authority = [];
      };
    };
    unproven('empty.example.');
    assert.equal(await world.summary('www.plain.empty.example.', TYPE.A), 'insecure 0 1');
    unproven('empty.example.', 'plain.empty.example.');
    assert.equal(await world.summary('www.plain.empty.example.', TYPE.A), 'bogus 2 0');
  });
});
