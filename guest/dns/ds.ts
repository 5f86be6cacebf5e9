import { hash } from 'node:crypto';
import { signingAlgorithm } from './algorithms.ts';
import type { ZoneKey } from './keys.ts';
import type { DomainName } from './name.ts';

const DIGESTS = new Map([
  [1, { node: 'sha1', bytes: 20 }],
  [2, { node: 'sha256', bytes: 32 }],
  [4, { node: 'sha384', bytes: 48 }],
]);
const DIGEST_SHA1 = 1;

/** RFC 4034 section 5. */
export interface Ds {
  readonly keyTag: number;
  readonly algorithm: number;
  readonly digestType: number;
  readonly digest: Buffer;
}

export function parseDs(rdata: Buffer): Ds | undefined {
  if (rdata.length <= 4) return undefined;
  return {
    keyTag: rdata.readUInt16BE(0),
    algorithm: rdata.readUInt8(2),
    digestType: rdata.readUInt8(3),
    digest: rdata.subarray(4),
  };
}

/**
 * The DS records that lead on: both algorithm and digest known (RFC 6840 section 5.2: the zone is insecure only when
 * none is). SHA-1 ones do not count beside a stronger one (RFC 4509 section 3), else an attacker who breaks
 * SHA-1 chooses the weaker path.
 */
export function usableDs(records: readonly Ds[]): Ds[] {
  const known = records.filter(
    (ds) => signingAlgorithm(ds.algorithm) !== undefined && DIGESTS.has(ds.digestType),
  );
  const strong = known.filter((ds) => ds.digestType !== DIGEST_SHA1);
  return strong.length > 0 ? strong : known;
}

/** RFC 4034 section 5.1.4: the digest is over the owner's canonical name and the key's rdata. */
export function dsMatches(ds: Ds, owner: DomainName, key: ZoneKey): boolean {
  const digest = DIGESTS.get(ds.digestType);
  if (digest === undefined || ds.digest.length !== digest.bytes) return false;
  if (ds.keyTag !== key.keyTag || ds.algorithm !== key.algorithm) return false;
  return hash(digest.node, Buffer.concat([owner.wire, key.rdata]), 'buffer').equals(ds.digest);
}
