import { isPosternError, PosternError } from '../../shared/errors.ts';
import type { TrustAnchors } from './anchors.ts';
import type { TrustChain } from './chain.ts';
import { DenialEvidence, denialSigners } from './evidence.ts';
import type { Work } from './limits.ts';
import type { DomainName } from './name.ts';
import type { Response, RRset } from './rrset.ts';
import { RCODE, TYPE } from './types.ts';
import { describe, maySign, verifyRrset } from './verify.ts';
import type { SecureZone, ZoneStatus } from './zone-status.ts';

/** RFC 4033 section 5. */
export type DnssecState = 'secure' | 'insecure' | 'bogus' | 'indeterminate';

/** What data of an answer turned out to be; bogus data throws instead. */
export interface Authentic {
  readonly state: Exclude<DnssecState, 'bogus'>;
  readonly ttlSeconds: number;
  readonly status: ZoneStatus;
  /** Why it is not secure, where its zone is. */
  readonly reason?: string;
  /** The denial records that it rests on. */
  readonly proof?: readonly RRset[];
}

export interface AuthenticDenial extends Authentic {
  readonly kind: 'nodata' | 'nxdomain';
  readonly soa: RRset | undefined;
}

/** Zones that may have signed one RRset: one, or two where a forger added another. */
const SIGNERS_MAX = 2;
/** RFC 2308 section 5 asks for an upper bound of hours. */
const NEGATIVE_TTL_MAX_SECONDS = 3_600;
/** A negative answer without an SOA may be kept for no time at all; this spares the upstream a storm. */
const NO_SOA_TTL_SECONDS = 5;

/** Joins data to the zones that vouch for it. */
export class Authenticator {
  readonly #anchors: TrustAnchors;
  readonly #chain: TrustChain;
  readonly #clock: () => number;

  constructor(anchors: TrustAnchors, chain: TrustChain, clock: () => number) {
    this.#anchors = anchors;
    this.#chain = chain;
    this.#clock = clock;
  }

  /** @throws PosternError ERR_DNS_*: bogus */
  async rrset(rrset: RRset, response: Response, work: Work): Promise<Authentic> {
    const signers = rrset.signatures.map((rrsig) => rrsig.signer).filter((signer) => maySign(rrset, signer));
    const missing = (zone: SecureZone): PosternError =>
      new PosternError(
        'ERR_DNS_SIGNATURE_MISSING',
        `${describe(rrset)} has no signature of its zone, and ${zone.name} is signed`,
      );
    const { ttlSeconds } = rrset;
    return this.#bySigner<Authentic>(rrset, signers, work, missing, {
      unsigned: (status) => ({ state: unsignedState(status), ttlSeconds, status }),
      signed: (zone, status) => this.#verify(rrset, response, zone, status, work),
    });
  }

  /** @throws PosternError ERR_DNS_*: the denial is not proven */
  async denial(name: DomainName, type: number, response: Response, work: Work): Promise<AuthenticDenial> {
    const signers = denialSigners(response.authority).filter((signer) =>
      maySign({ name, type: type === TYPE.DS ? type : 0 }, signer),
    );
    const missing = (zone: SecureZone): PosternError =>
      new PosternError(
        'ERR_DNS_SIGNATURE_MISSING',
        `nothing signed denies ${describe({ name, type })}, and ${zone.name} is signed`,
      );
    return this.#bySigner<AuthenticDenial>({ name, type }, signers, work, missing, {
      unsigned: (status) => unsignedDenial(name, response, status),
      signed: (zone, status) => this.#deny(name, type, response, zone, status, work),
    });
  }

  /** Whether what `owner` says of all names below it counts for `name`: not past the anchor that governs `name`. */
  reaches(owner: DomainName, name: DomainName): boolean {
    const anchor = this.#anchors.closest(name);
    return anchor === undefined || anchor.negative || owner.isWithin(anchor.name);
  }

  /** Finds the zone that governs the data, by its signatures where it has some, and lets it decide. */
  async #bySigner<T>(
    data: { readonly name: DomainName; readonly type: number },
    signers: readonly DomainName[],
    work: Work,
    missing: (zone: SecureZone) => PosternError,
    decide: {
      unsigned(status: Exclude<ZoneStatus, { state: 'secure' }>): T;
      signed(zone: SecureZone, status: ZoneStatus): Promise<T>;
    },
  ): Promise<T> {
    const governed = data.type === TYPE.DS ? data.name.parent() : data.name;
    const anchor = this.#anchors.closest(governed);
    const eligible = anchor === undefined || anchor.negative ? [] : deepestFirst(signers, anchor.name);
    if (eligible.length === 0) {
      const status = await this.#chain.statusOf(governed, work);
      if (status.state === 'secure') throw missing(status.zone);
      return decide.unsigned(status);
    }
    let fault: PosternError | undefined;
    for (const signer of eligible) {
      const status = await this.#chain.statusOf(signer, work, true);
      if (status.state !== 'secure') return decide.unsigned(status);
      if (!status.zone.name.equals(signer)) {
        const reason = `${describe(data)} is signed by ${signer}, which is no zone: ${status.zone.name} holds it`;
        fault ??= new PosternError('ERR_DNS_BOGUS', reason);
        continue;
      }
      try {
        return await decide.signed(status.zone, status);
      } catch (error) {
        if (!isPosternError(error) || error.code === 'ERR_DNS_LIMIT') throw error;
        fault ??= error;
      }
    }
    throw fault ?? new Error('there was a signer');
  }

  async #verify(
    rrset: RRset,
    response: Response,
    zone: SecureZone,
    status: ZoneStatus,
    work: Work,
  ): Promise<Authentic> {
    const verified = await verifyRrset(rrset, zone, this.#clock(), work);
    const { expandedFrom, ttlSeconds } = verified;
    if (expandedFrom === undefined) return { state: 'secure', ttlSeconds, status };
    const evidence = await DenialEvidence.collect(response.authority, zone, this.#clock(), work);
    const state = evidence.expansion(rrset.name, expandedFrom);
    const reason = `${rrset.name} was made from a wildcard, and ${zone.name} cannot prove that it is no unsigned zone`;
    return {
      state,
      ttlSeconds: Math.min(ttlSeconds, evidence.ttlSeconds),
      status,
      proof: evidence.rrsets,
      ...(state === 'insecure' ? { reason } : {}),
    };
  }

  async #deny(
    name: DomainName,
    type: number,
    response: Response,
    zone: SecureZone,
    status: ZoneStatus,
    work: Work,
  ): Promise<AuthenticDenial> {
    const evidence = await DenialEvidence.collect(response.authority, zone, this.#clock(), work);
    const nameError = response.rcode === RCODE.NXDOMAIN;
    const denial = evidence.deny(name, type, nameError);
    const soa = await this.#signedSoa(response, zone, work);
    const ttlSeconds = Math.min(evidence.ttlSeconds, soa?.ttlSeconds ?? NEGATIVE_TTL_MAX_SECONDS);
    const bounded = {
      ttlSeconds: Math.min(ttlSeconds, NEGATIVE_TTL_MAX_SECONDS),
      soa: soa?.rrset,
      proof: evidence.rrsets,
      status,
    };
    if (denial.kind === 'unchecked') {
      return {
        ...bounded,
        state: 'insecure',
        reason: denial.reason,
        kind: nameError ? 'nxdomain' : 'nodata',
      };
    }
    if (denial.optOut !== true) return { ...bounded, state: 'secure', kind: denial.kind };
    const reason = `${zone.name} proves this with opt-out only: an unsigned zone may be hidden there`;
    return { ...bounded, state: 'insecure', reason, kind: denial.kind };
  }

  /** The zone's SOA for negative caching; left out, like anything else, where its signature is wrong. */
  async #signedSoa(
    response: Response,
    zone: SecureZone,
    work: Work,
  ): Promise<{ rrset: RRset; ttlSeconds: number } | undefined> {
    const rrset = response.authority.find(zone.name, TYPE.SOA);
    if (rrset === undefined || rrset.signatures.length === 0) return undefined;
    try {
      const { ttlSeconds } = await verifyRrset(rrset, zone, this.#clock(), work);
      return { rrset, ttlSeconds: Math.min(ttlSeconds, soaMinimum(rrset)) };
    } catch (error) {
      if (!isPosternError(error) || error.code === 'ERR_DNS_LIMIT') throw error;
      return undefined;
    }
  }
}

function unsignedState(status: ZoneStatus): 'insecure' | 'indeterminate' {
  return status.state === 'indeterminate' ? 'indeterminate' : 'insecure';
}

function unsignedDenial(name: DomainName, response: Response, status: ZoneStatus): AuthenticDenial {
  const soa = response.authority.ofType(TYPE.SOA).find((rrset) => name.isWithin(rrset.name));
  const ttlSeconds = soa === undefined ? NO_SOA_TTL_SECONDS : Math.min(soa.ttlSeconds, soaMinimum(soa));
  return {
    state: unsignedState(status),
    ttlSeconds: Math.min(ttlSeconds, NEGATIVE_TTL_MAX_SECONDS),
    status,
    kind: response.rcode === RCODE.NXDOMAIN ? 'nxdomain' : 'nodata',
    soa,
  };
}

/** Distinct signers, those above the governing anchor left out: the closest anchor is the one that counts. */
function deepestFirst(signers: readonly DomainName[], anchor: DomainName): DomainName[] {
  const distinct = new Map(
    signers.filter((signer) => signer.isWithin(anchor)).map((signer) => [signer.key, signer]),
  );
  return [...distinct.values()].sort((a, b) => b.labelCount - a.labelCount).slice(0, SIGNERS_MAX);
}

/** RFC 2308 section 4: the last field of the SOA. */
function soaMinimum(soa: RRset): number {
  const [rdata] = soa.rdata;
  return rdata === undefined || rdata.length < 4 ? 0 : rdata.readUInt32BE(rdata.length - 4);
}
