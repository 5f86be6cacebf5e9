import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { dsMatches, parseDs, usableDs } from '../../guest/dns/ds.ts';
import { KeyRing, keyTag, parseZoneKey } from '../../guest/dns/keys.ts';
import { DNS_LIMITS, Work } from '../../guest/dns/limits.ts';
import { DomainName } from '../../guest/dns/name.ts';
import { canonicalRdata } from '../../guest/dns/rdata.ts';
import { sortUnique } from '../../guest/dns/rrset.ts';
import { parseRrsig, serialAtLeast } from '../../guest/dns/rrsig.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { verifyRrset } from '../../guest/dns/verify.ts';
import { addressRdata, nameRdata, numbers } from './encode.ts';

describe('names', () => {
  test('canonical order (RFC 4034 section 6.1)', () => {
    const ordered = [
      'example.',
      'a.example.',
      'yljkjljk.a.example.',
      'Z.a.example.',
      'zABC.a.EXAMPLE.',
      'z.example.',
      '\\001.z.example.',
      '*.z.example.',
      '\\200.z.example.',
    ];
    const names = ordered.map((text) => DomainName.parse(text));
    const shuffled = [...names].reverse().sort((a, b) => a.compare(b));
    assert.deepEqual(shuffled.map(String), names.map(String));
  });

  test('labels hold any octet, and a dot in a label is no separator', () => {
    const name = DomainName.parse('a\\.b.example');
    assert.equal(name.labelCount, 2);
    assert.equal(name.toString(), 'a\\.b.example.');
    assert.ok(!name.equals(DomainName.parse('a.b.example')));
    assert.equal(DomainName.parse('\\255\\000.').toString(), '\\255\\000.');
  });

  test('within: whole labels only', () => {
    const zone = DomainName.parse('example.com.');
    assert.ok(DomainName.parse('a.example.com.').isBelow(zone));
    assert.ok(!DomainName.parse('badexample.com.').isWithin(zone));
    // A label whose octets look like the wire form of the zone.
    assert.ok(!DomainName.parse('x\\007example\\003com.').isWithin(zone));
    assert.ok(!zone.isBelow(zone));
  });

  test('what is no name', () => {
    const long = Array.from({ length: 64 }, () => 'abc').join('.');
    for (const text of ['', '..', 'a..b', `${'a'.repeat(64)}.`, long, 'a b', '\\999.', 'ü.example']) {
      assert.throws(() => DomainName.parse(text), { code: 'ERR_DNS_NAME' }, JSON.stringify(text));
    }
  });
});

describe('RFC 4034 section 6.2: canonical rdata', () => {
  const upper = Buffer.from('\x02NS\x07EXAMPLE\x00', 'latin1');
  const lower = Buffer.from('\x02ns\x07example\x00', 'latin1');

  test('names are lowered in the listed types and left alone in NSEC and unknown types', () => {
    for (const type of [TYPE.NS, TYPE.CNAME, TYPE.PTR, TYPE.DNAME]) {
      assert.deepEqual(canonicalRdata(upper, type, 0, upper.length), lower);
    }
    for (const type of [TYPE.NSEC, TYPE.SVCB, 65_400]) {
      assert.deepEqual(canonicalRdata(upper, type, 0, upper.length), upper);
    }
    const mx = Buffer.concat([numbers([10, 2]), upper]);
    assert.deepEqual(canonicalRdata(mx, TYPE.MX, 0, mx.length), Buffer.concat([numbers([10, 2]), lower]));
  });

  test('rdata must be exactly as long as its type', () => {
    const cases: [number, Buffer][] = [
      [TYPE.A, Buffer.alloc(3)],
      [TYPE.A, Buffer.alloc(5)],
      [TYPE.AAAA, Buffer.alloc(4)],
      [TYPE.CNAME, Buffer.concat([lower, Buffer.alloc(1)])],
      [TYPE.SOA, lower],
      [TYPE.MX, Buffer.alloc(2)],
      [TYPE.NAPTR, Buffer.concat([Buffer.alloc(4), Buffer.from([200])])],
    ];
    for (const [type, rdata] of cases) {
      assert.throws(() => canonicalRdata(rdata, type, 0, rdata.length), { code: 'ERR_DNS_MALFORMED' });
    }
  });

  test('section 6.3: left-justified octets, duplicates once', () => {
    const sorted = sortUnique([Buffer.from([2]), Buffer.from([1, 0]), Buffer.from([1]), Buffer.from([2])]);
    assert.deepEqual(sorted, [Buffer.from([1]), Buffer.from([1, 0]), Buffer.from([2])]);
  });
});

describe('numbers', () => {
  test('serial arithmetic (RFC 1982)', () => {
    assert.ok(serialAtLeast(5, 5));
    assert.ok(serialAtLeast(0, 0xffffffff));
    assert.ok(!serialAtLeast(0xffffffff, 0));
    assert.ok(serialAtLeast(0x7fffffff, 0));
    assert.ok(!serialAtLeast(0x80000001, 0));
  });

  test('the key tag of RFC 4034 section 5.4', () => {
    const key =
      'AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw==';
    const rdata = Buffer.concat([numbers([256, 2], [3, 1], [5, 1]), Buffer.from(key, 'base64')]);
    assert.equal(keyTag(rdata), 60485);
    assert.equal(parseZoneKey(rdata), undefined, 'algorithm 5 is not checked');
  });
});

/** Keys, DS and signatures printed in RFCs: made by others' implementations. */
const VECTORS = [
  {
    source: 'RFC 6605 section 6.1 (P-256)',
    zone: 'example.net.',
    key: [
      257,
      13,
      'GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==',
    ],
    ds: [55648, 13, 2, 'b4c8c1fe2e7477127b27115656ad6256f424625bf5c1e2770ce6d6e37df61d17'],
    owner: 'www.example.net.',
    type: TYPE.A,
    rdata: addressRdata('192.0.2.1'),
    rrsig: [13, 3, 3600, 1284026679, 1281607479, 55648],
    signature: 'qx6wLYqmh+l9oCKTN6qIc+bw6ya+KJ8oMz0YP107epXAyGmt+3SNruPFKG7tZoLBLlUzGGus7ZwmwWep666VCw==',
  },
  {
    source: 'RFC 8080 section 6.1 (Ed25519)',
    zone: 'example.com.',
    key: [257, 15, 'l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4='],
    ds: [3613, 15, 2, '3aa5ab37efce57f737fc1627013fee07bdf241bd10f3b1964ab55c78e79a304b'],
    owner: 'example.com.',
    type: TYPE.MX,
    rdata: Buffer.concat([numbers([10, 2]), nameRdata('mail.example.com.')]),
    rrsig: [15, 2, 3600, 1440021600, 1438207200, 3613],
    signature: 'oL9krJun7xfBOIWcGHi7mag5/hdZrKWw15jPGrHpjQeRAvTdszaPD+QLs3fx8A4M3e23mRZ9VrbpMngwcrqNAg==',
  },
] as const;

describe('vectors of the RFCs', () => {
  for (const vector of VECTORS) {
    test(vector.source, async () => {
      const zone = DomainName.parse(vector.zone);
      const [flags, algorithm, octets] = vector.key;
      const key = parseZoneKey(
        Buffer.concat([numbers([flags, 2], [3, 1], [algorithm, 1]), Buffer.from(octets, 'base64')]),
      );
      assert.ok(key);
      const [tag, dsAlgorithm, digestType, digest] = vector.ds;
      const head = numbers([tag, 2], [dsAlgorithm, 1], [digestType, 1]);
      const ds = parseDs(Buffer.concat([head, Buffer.from(digest, 'hex')]));
      assert.ok(ds !== undefined && dsMatches(ds, zone, key));
      const [sigAlgorithm, labels, ttl, expiration, inception, sigTag] = vector.rrsig;
      const fixed = numbers(
        [vector.type, 2],
        [sigAlgorithm, 1],
        [labels, 1],
        [ttl, 4],
        [expiration, 4],
        [inception, 4],
        [sigTag, 2],
      );
      const rrsig = parseRrsig(Buffer.concat([fixed, zone.wire, Buffer.from(vector.signature, 'base64')]));
      assert.ok(rrsig);
      const rrset = {
        name: DomainName.parse(vector.owner),
        type: vector.type,
        ttlSeconds: ttl,
        rdata: [vector.rdata],
        signatures: [rrsig],
      };
      const work = new Work(DNS_LIMITS);
      const verified = await verifyRrset(
        rrset,
        { name: zone, keys: new KeyRing([key]) },
        inception + 1,
        work,
      );
      assert.equal(verified.rrsig, rrsig);
      assert.equal(work.verifications, 1);
    });
  }

  test('DS records that lead on: known algorithm and digest, SHA-1 only alone', () => {
    const ds = (algorithm: number, digestType: number) => ({
      keyTag: 1,
      algorithm,
      digestType,
      digest: Buffer.alloc(20),
    });
    assert.deepEqual(usableDs([ds(13, 1), ds(13, 2)]), [ds(13, 2)]);
    assert.deepEqual(usableDs([ds(13, 1), ds(99, 2)]), [ds(13, 1)]);
    assert.deepEqual(usableDs([ds(13, 3), ds(5, 2), ds(99, 4)]), []);
  });
});
