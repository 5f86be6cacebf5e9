import { hash } from 'node:crypto';
import { TypeBitmap } from './bitmap.ts';
import { type Denial, deniesType, isAncestorDelegation, notProven } from './denial.ts';
import type { Work } from './limits.ts';
import type { DomainName } from './name.ts';
import type { RRset } from './rrset.ts';
import { TYPE } from './types.ts';

const HASH_SHA1 = 1;
const HASH_BYTES = 20;
const FLAG_OPT_OUT = 1;
const BASE32HEX = '0123456789abcdefghijklmnopqrstuv';

/** An authentic NSEC3 record (RFC 5155 section 3); hashes are octets, latin1. */
export interface Nsec3 {
  readonly ownerHash: string;
  readonly nextHash: string;
  readonly optOut: boolean;
  readonly iterations: number;
  readonly salt: string;
  readonly types: TypeBitmap;
}

/** From a verified RRset of `zone`; undefined for one to be ignored (RFC 5155 section 8.2) or that is malformed. */
export function parseNsec3(rrset: RRset, zone: DomainName): Nsec3 | undefined {
  const [rdata, second] = rrset.rdata;
  if (rdata === undefined || second !== undefined || rdata.length < 5) return undefined;
  if (rrset.name.labelCount !== zone.labelCount + 1 || !rrset.name.isBelow(zone)) return undefined;
  const flags = rdata.readUInt8(1);
  if (rdata.readUInt8(0) !== HASH_SHA1 || (flags & ~FLAG_OPT_OUT) !== 0) return undefined;
  const saltEnd = 5 + rdata.readUInt8(4);
  const nextStart = saltEnd + 1;
  const nextEnd = nextStart + HASH_BYTES;
  if (rdata[saltEnd] !== HASH_BYTES || nextEnd > rdata.length) return undefined;
  const ownerHash = fromBase32Hex(rrset.name.label(0));
  const types = TypeBitmap.parse(rdata.subarray(nextEnd));
  if (ownerHash === undefined || types === undefined) return undefined;
  return {
    ownerHash,
    nextHash: rdata.toString('latin1', nextStart, nextEnd),
    optOut: (flags & FLAG_OPT_OUT) !== 0,
    iterations: rdata.readUInt16BE(2),
    salt: rdata.toString('latin1', 5, saltEnd),
    types,
  };
}

/** RFC 4648 section 7, unpadded, of exactly one SHA-1 hash. */
function fromBase32Hex(label: string): string | undefined {
  if (label.length !== (HASH_BYTES * 8) / 5) return undefined;
  let octets = '';
  let bits = 0;
  let value = 0;
  for (const char of label) {
    const digit = BASE32HEX.indexOf(char);
    if (digit < 0) return undefined;
    value = ((value << 5) | digit) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      octets += String.fromCharCode((value >> bits) & 0xff);
    }
  }
  return octets;
}

/** The NSEC3 records of one zone in one answer, with the hashes computed for it. */
export class Nsec3Chain {
  readonly zone: DomainName;
  readonly #records: readonly Nsec3[];
  readonly #work: Work;
  readonly #hashes = new Map<string, string>();

  constructor(zone: DomainName, records: readonly Nsec3[], work: Work) {
    this.zone = zone;
    this.#records = records;
    this.#work = work;
  }

  /** What keeps the records from being evaluated at all, or undefined. */
  obstacle(): Denial | undefined {
    const [first] = this.#records;
    if (first === undefined) return notProven(`no usable NSEC3 of ${this.zone}`);
    const mixed = this.#records.some(
      (record) => record.salt !== first.salt || record.iterations !== first.iterations,
    );
    // RFC 5155 section 8.2: a proof is made of one chain, not put together from several.
    if (mixed) return notProven(`NSEC3 records of ${this.zone} with different parameters`);
    if (first.iterations > this.#work.limits.nsec3Iterations) {
      return { kind: 'unchecked', reason: `${this.zone} uses ${first.iterations} NSEC3 iterations` };
    }
    return undefined;
  }

  matching(name: DomainName): Nsec3 | undefined {
    const hashed = this.#hash(name);
    return this.#records.find((record) => record.ownerHash === hashed);
  }

  covering(name: DomainName): Nsec3 | undefined {
    const hashed = this.#hash(name);
    return this.#records.find(({ ownerHash, nextHash }) =>
      ownerHash < nextHash
        ? ownerHash < hashed && hashed < nextHash
        : hashed !== ownerHash && (hashed > ownerHash || hashed < nextHash),
    );
  }

  /**
   * RFC 5155 section 8.3: the closest encloser that is proven, with the record that covers the name one label below
   * it. Undefined where that is not proven, or where the encloser is a delegation or has a DNAME.
   */
  closestEncloser(name: DomainName): { encloser: DomainName; nextCloser: Nsec3 } | undefined {
    for (let count = name.labelCount - 1; count >= this.zone.labelCount; count -= 1) {
      const encloser = name.suffix(count);
      const match = this.matching(encloser);
      if (match === undefined) continue;
      if (isAncestorDelegation(match.types) || match.types.has(TYPE.DNAME)) return undefined;
      const nextCloser = this.covering(name.suffix(count + 1));
      return nextCloser === undefined ? undefined : { encloser, nextCloser };
    }
    return undefined;
  }

  /** RFC 5155 section 5: IH(salt, x, k). */
  #hash(name: DomainName): string {
    const known = this.#hashes.get(name.key);
    if (known !== undefined) return known;
    const [first] = this.#records;
    if (first === undefined) return '';
    this.#work.countNsec3(first.iterations);
    const salt = Buffer.from(first.salt, 'latin1');
    let digest = hash('sha1', Buffer.concat([name.wire, salt]), 'buffer');
    for (let round = 0; round < first.iterations; round += 1) {
      digest = hash('sha1', Buffer.concat([digest, salt]), 'buffer');
    }
    const octets = digest.toString('latin1');
    this.#hashes.set(name.key, octets);
    return octets;
  }
}

/** What an NSEC3 chain proves of (`name`, `type`); RFC 5155 sections 8.4 to 8.7. */
export function denyByNsec3(chain: Nsec3Chain, name: DomainName, type: number, nameError: boolean): Denial {
  const obstacle = chain.obstacle();
  if (obstacle !== undefined) return obstacle;
  const match = chain.matching(name);
  if (match !== undefined) {
    if (deniesType(match.types, name, type)) return { kind: 'nodata', types: match.types };
    return notProven(`the NSEC3 of ${name} does not deny the type`);
  }
  const proof = chain.closestEncloser(name);
  if (proof === undefined) return notProven(`no NSEC3 proof of a closest encloser of ${name}`);
  const { optOut } = proof.nextCloser;
  const wildcard = proof.encloser.wildcardChild();
  const atWildcard = wildcard === undefined ? undefined : chain.matching(wildcard);
  if (nameError) {
    const denied =
      wildcard === undefined || (atWildcard === undefined && chain.covering(wildcard) !== undefined);
    return denied ? { kind: 'nxdomain', optOut } : notProven(`no NSEC3 denies ${wildcard}`);
  }
  if (wildcard !== undefined && atWildcard !== undefined) {
    if (deniesType(atWildcard.types, wildcard, type)) return { kind: 'nodata', wildcard: true, optOut };
    return notProven(`the NSEC3 of ${wildcard} does not deny the type`);
  }
  // Section 8.6, and erratum 3441 for an empty non-terminal above unsigned delegations only.
  if (optOut) return { kind: 'nodata', optOut };
  return notProven(`no NSEC3 matches ${name}, and the span that covers it is not opt-out`);
}

/** RFC 5155 section 8.8: the name below the closest encloser that leads to `name` does not exist. */
export function expansionByNsec3(
  chain: Nsec3Chain,
  name: DomainName,
  encloser: DomainName,
): Denial | { readonly kind: 'expansion'; readonly optOut: boolean } {
  const obstacle = chain.obstacle();
  if (obstacle !== undefined) return obstacle;
  const nextCloser = name.suffix(encloser.labelCount + 1);
  const cover = chain.covering(nextCloser);
  if (cover === undefined) return notProven(`no NSEC3 covers ${nextCloser}`);
  return { kind: 'expansion', optOut: cover.optOut };
}
