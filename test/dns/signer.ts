import { generateKeyPairSync, hash, type KeyObject, sign } from 'node:crypto';
import { keyTag } from '../../guest/dns/keys.ts';
import type { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { numbers, type TestRecord } from './encode.ts';

/** When the tests take place, and the period of what they sign. */
export const NOW = 1_700_000_000;
const PERIOD_SECONDS = 7 * 86_400;

export interface TestKey {
  readonly algorithm: number;
  readonly rdata: Buffer;
  readonly keyTag: number;
  sign(data: Buffer): Buffer;
}

const FLAG_KSK = 257;

/** A fresh key of algorithm 8, 10, 13, 14, 15 or 16. */
export function newKey(algorithm: number, flags = FLAG_KSK): TestKey {
  const { publicKey, privateKey } = generate(algorithm);
  const rdata = Buffer.concat([
    numbers([flags, 2], [3, 1], [algorithm, 1]),
    publicOctets(algorithm, publicKey),
  ]);
  const digest = { 8: 'sha256', 10: 'sha512', 13: 'sha256', 14: 'sha384' }[algorithm];
  return {
    algorithm,
    rdata,
    keyTag: keyTag(rdata),
    sign: (data) => sign(digest, data, { key: privateKey, dsaEncoding: 'ieee-p1363' }),
  };
}

function generate(algorithm: number): { publicKey: KeyObject; privateKey: KeyObject } {
  switch (algorithm) {
    case 13:
      return generateKeyPairSync('ec', { namedCurve: 'P-256' });
    case 14:
      return generateKeyPairSync('ec', { namedCurve: 'P-384' });
    case 15:
      return generateKeyPairSync('ed25519');
    case 16:
      return generateKeyPairSync('ed448');
    default:
      return generateKeyPairSync('rsa', { modulusLength: 1024 });
  }
}

function publicOctets(algorithm: number, key: KeyObject): Buffer {
  const jwk = key.export({ format: 'jwk' });
  const part = (text: string | undefined): Buffer => Buffer.from(text ?? '', 'base64url');
  if (algorithm === 13 || algorithm === 14) return Buffer.concat([part(jwk.x), part(jwk.y)]);
  if (algorithm === 15 || algorithm === 16) return part(jwk.x);
  const exponent = part(jwk.e);
  return Buffer.concat([Buffer.from([exponent.length]), exponent, part(jwk.n)]);
}

/** What a test may get wrong on purpose. */
export interface SigningOptions {
  readonly signer: DomainName;
  readonly labels?: number;
  readonly inception?: number;
  readonly expiration?: number;
  readonly originalTtl?: number;
  readonly algorithm?: number;
  readonly keyTag?: number;
}

/** The RRSIG record over one RRset, written apart from the validator: RFC 4034 section 3.1.8.1 once more. */
export function signRrset(rrset: readonly TestRecord[], key: TestKey, options: SigningOptions): TestRecord {
  const [first] = rrset;
  if (first === undefined) throw new Error('nothing to sign');
  const originalTtl = options.originalTtl ?? first.ttlSeconds;
  const own = first.name.labelCount - (first.name.isWildcard ? 1 : 0);
  const head = numbers(
    [first.type, 2],
    [options.algorithm ?? key.algorithm, 1],
    [options.labels ?? own, 1],
    [originalTtl, 4],
    [(options.expiration ?? NOW + PERIOD_SECONDS) >>> 0, 4],
    [(options.inception ?? NOW - PERIOD_SECONDS) >>> 0, 4],
    [options.keyTag ?? key.keyTag, 2],
  );
  const covered = Buffer.concat([head, options.signer.wire]);
  const rdata = rrset.map((record) => record.rdata).sort(Buffer.compare);
  const signed = rdata.map((octets) =>
    Buffer.concat([
      first.name.wire,
      numbers([first.type, 2], [1, 2], [originalTtl, 4], [octets.length, 2]),
      octets,
    ]),
  );
  const signature = key.sign(Buffer.concat([covered, ...signed]));
  return {
    name: first.name,
    type: TYPE.RRSIG,
    ttlSeconds: first.ttlSeconds,
    rdata: Buffer.concat([covered, signature]),
  };
}

/** The DS rdata of a key (RFC 4034 section 5.1.4); digest types 1, 2 and 4. */
export function dsRdata(owner: DomainName, key: TestKey, digestType = 2): Buffer {
  const digest = { 1: 'sha1', 2: 'sha256', 4: 'sha384' }[digestType] ?? 'sha256';
  const octets = hash(digest, Buffer.concat([owner.wire, key.rdata]), 'buffer');
  return Buffer.concat([numbers([key.keyTag, 2], [key.algorithm, 1], [digestType, 1]), octets]);
}
