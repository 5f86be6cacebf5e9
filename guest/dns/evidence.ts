import { isPosternError, PosternError } from '../../shared/errors.ts';
import { type Denial, notProven } from './denial.ts';
import type { Work } from './limits.ts';
import type { DomainName } from './name.ts';
import { allowsExpansionByNsec, denyByNsec, type Nsec, parseNsec } from './nsec.ts';
import { denyByNsec3, expansionByNsec3, type Nsec3, Nsec3Chain, parseNsec3 } from './nsec3.ts';
import type { RRset, Section } from './rrset.ts';
import { TYPE } from './types.ts';
import { type Signer, verifyRrset } from './verify.ts';

/** A name error takes three NSEC3 records; an answer through several aliases of one zone a few more. */
const DENIAL_RECORDS_MAX = 16;

/** What a wildcard's expansion is worth: proven, proven under opt-out or too dear, or not proven. */
export type Expansion = 'secure' | 'insecure';

/** The authentic denial records of one zone in one answer, and what follows from them. */
export class DenialEvidence {
  readonly #zone: DomainName;
  readonly #nsec: readonly Nsec[];
  readonly #nsec3: Nsec3Chain;
  readonly #hasNsec3: boolean;
  /** The records themselves, for who wants to prove it again. */
  readonly rrsets: readonly RRset[];
  /** The least TTL of the records, which bounds what is concluded from them. */
  readonly ttlSeconds: number;
  /** Why a record did not count: the better explanation when the rest prove too little. */
  readonly #fault: PosternError | undefined;

  private constructor(
    zone: DomainName,
    rrsets: readonly RRset[],
    nsec: readonly Nsec[],
    nsec3: readonly Nsec3[],
    ttlSeconds: number,
    fault: PosternError | undefined,
    work: Work,
  ) {
    this.#zone = zone;
    this.rrsets = rrsets;
    this.#nsec = nsec;
    this.#nsec3 = new Nsec3Chain(zone, nsec3, work);
    this.#hasNsec3 = nsec3.length > 0;
    this.ttlSeconds = ttlSeconds;
    this.#fault = fault;
  }

  /** Verifies the records that `signer` signed; others are as if they were not there. */
  static async collect(
    authority: Section,
    signer: Signer,
    epochSeconds: number,
    work: Work,
  ): Promise<DenialEvidence> {
    const rrsets: RRset[] = [];
    const nsec: Nsec[] = [];
    const nsec3: Nsec3[] = [];
    let ttlSeconds = Number.MAX_SAFE_INTEGER;
    let fault: PosternError | undefined;
    const candidates = authority.rrsets.filter((rrset) => isDenialOf(rrset, signer.name));
    for (const rrset of candidates.slice(0, DENIAL_RECORDS_MAX)) {
      try {
        const verified = await verifyRrset(rrset, signer, epochSeconds, work);
        // An NSEC that a wildcard made speaks of its wildcard, not of its owner (CVE-2017-15105).
        if (verified.expandedFrom !== undefined) continue;
        ttlSeconds = Math.min(ttlSeconds, verified.ttlSeconds);
      } catch (error) {
        if (!isPosternError(error) || error.code === 'ERR_DNS_LIMIT') throw error;
        fault ??= error;
        continue;
      }
      rrsets.push(rrset);
      const record = rrset.type === TYPE.NSEC ? parseNsec(rrset, signer.name) : undefined;
      const hashed = rrset.type === TYPE.NSEC3 ? parseNsec3(rrset, signer.name) : undefined;
      if (record !== undefined) nsec.push(record);
      if (hashed !== undefined) nsec3.push(hashed);
    }
    return new DenialEvidence(signer.name, rrsets, nsec, nsec3, ttlSeconds, fault, work);
  }

  /** @throws PosternError ERR_DNS_DENIAL_MISSING, or what was wrong with a record that would have been needed */
  deny(name: DomainName, type: number, nameError: boolean): Exclude<Denial, { kind: 'unproven' }> {
    let denial = notProven(`the answer has no NSEC or NSEC3 of ${this.#zone}`);
    if (this.#nsec.length > 0) denial = denyByNsec(this.#nsec, this.#zone, name, type, nameError);
    if (denial.kind === 'unproven' && this.#hasNsec3)
      denial = denyByNsec3(this.#nsec3, name, type, nameError);
    if (denial.kind !== 'unproven') return denial;
    throw this.#fault ?? new PosternError('ERR_DNS_DENIAL_MISSING', `unproven denial: ${denial.reason}`);
  }

  /** @throws PosternError as `deny` */
  expansion(name: DomainName, encloser: DomainName): Expansion {
    if (allowsExpansionByNsec(this.#nsec, this.#zone, name, encloser)) return 'secure';
    const proof = expansionByNsec3(this.#nsec3, name, encloser);
    if (proof.kind === 'expansion') return proof.optOut ? 'insecure' : 'secure';
    if (proof.kind === 'unchecked') return 'insecure';
    const reason = `${name} was made from *.${encloser.isRoot ? '' : encloser}, and nothing proves that it does not exist itself`;
    throw this.#fault ?? new PosternError('ERR_DNS_DENIAL_MISSING', reason);
  }
}

/** The zones that signed denial records in this section. */
export function denialSigners(authority: Section): DomainName[] {
  return authority.rrsets
    .filter((rrset) => rrset.type === TYPE.NSEC || rrset.type === TYPE.NSEC3)
    .flatMap((rrset) => rrset.signatures.map((rrsig) => rrsig.signer));
}

function isDenialOf(rrset: RRset, zone: DomainName): boolean {
  if (rrset.type !== TYPE.NSEC && rrset.type !== TYPE.NSEC3) return false;
  return rrset.signatures.some((rrsig) => rrsig.signer.equals(zone));
}
