import { hash } from 'node:crypto';
import { PosternError } from '../../shared/errors.ts';
import { algorithmName, signingAlgorithm, verifySignature } from './algorithms.ts';
import type { KeyRing, ZoneKey } from './keys.ts';
import { overLimit, type Work } from './limits.ts';
import type { DomainName } from './name.ts';
import type { RRset } from './rrset.ts';
import { countedLabels, periodAt, type Rrsig } from './rrsig.ts';
import { signedData } from './signed-data.ts';
import { TYPE, typeName } from './types.ts';

/** An RRset that a key of its zone signed. */
export interface Verified {
  readonly rrsig: Rrsig;
  /** How long it may be kept: TTL, original TTL and what is left of the signature, the least of them. */
  readonly ttlSeconds: number;
  /** The closest encloser that the signature names, where the RRset was expanded from a wildcard. */
  readonly expandedFrom: DomainName | undefined;
}

/** The zone apex that signs and its keys. */
export interface Signer {
  readonly name: DomainName;
  readonly keys: KeyRing;
}

/** Signatures of an RRset that are looked at at all, the unfit included. */
const SIGNATURES_READ_MAX = 32;
/** Types that mean nothing, or something dangerous, when a wildcard made them. */
const NEVER_EXPANDED = new Set<number>([TYPE.DS, TYPE.DNSKEY, TYPE.DNAME, TYPE.SOA, TYPE.NS]);
/** Types that stand only at the apex of the zone that signs them. */
const APEX_ONLY = new Set<number>([TYPE.DNSKEY, TYPE.SOA, TYPE.NS, TYPE.NSEC3PARAM]);

/**
 * RFC 4035 section 5.3 for one RRset and one zone. The first signature that holds is enough (RFC 6840 section 5.11).
 * @throws PosternError ERR_DNS_EXPIRED, ERR_DNS_NOT_YET_VALID, ERR_DNS_KEY_MISSING, ERR_DNS_BOGUS,
 *   ERR_DNS_SIGNATURE_MISSING or ERR_DNS_LIMIT, saying what is wrong with the best of the signatures
 */
export async function verifyRrset(
  rrset: RRset,
  signer: Signer,
  epochSeconds: number,
  work: Work,
): Promise<Verified> {
  const what = describe(rrset);
  let fault = new PosternError('ERR_DNS_SIGNATURE_MISSING', `${what} has no signature of ${signer.name}`);
  let tried = 0;
  for (const rrsig of rrset.signatures.slice(0, SIGNATURES_READ_MAX)) {
    const problem = unfit(rrset, rrsig, signer, epochSeconds);
    if (problem !== undefined) {
      if (fault.code === 'ERR_DNS_SIGNATURE_MISSING') fault = problem;
      continue;
    }
    const keys = signer.keys.find(rrsig.algorithm, rrsig.keyTag);
    if (tried === work.limits.signaturesPerRrset) {
      throw overLimit(`more than ${work.limits.signaturesPerRrset} signatures of ${what}`);
    }
    tried += 1;
    if (await anyKeyVerifies(rrset, rrsig, keys, work)) return accepted(rrset, rrsig, epochSeconds);
    fault = new PosternError('ERR_DNS_BOGUS', `the signature of ${what} by ${keyText(rrsig)} is wrong`);
    if (keys.length > work.limits.keysPerTag) {
      throw overLimit(`more than ${work.limits.keysPerTag} keys with the tag of ${keyText(rrsig)}`);
    }
  }
  throw fault;
}

async function anyKeyVerifies(
  rrset: RRset,
  rrsig: Rrsig,
  keys: readonly ZoneKey[],
  work: Work,
): Promise<boolean> {
  const data = signedData(rrset, rrsig);
  for (const key of keys.slice(0, work.limits.keysPerTag)) {
    const keyObject = key.keyObject();
    if (keyObject === undefined) continue;
    // The same bad octets come again when an answer is asked over TCP or of another resolver.
    if (work.badSignatures.size > 0 && work.badSignatures.has(attempt(key, data, rrsig))) continue;
    work.countVerification();
    const { signature } = rrsig;
    if (await verifySignature(key.signing, keyObject, data, signature, work.isAlone())) return true;
    work.badSignatures.add(attempt(key, data, rrsig));
  }
  return false;
}

function attempt(key: ZoneKey, data: Buffer, rrsig: Rrsig): string {
  return hash('sha256', Buffer.concat([key.rdata, data, rrsig.signature]), 'base64');
}

/** What keeps a signature from the cryptography (RFC 4035 section 5.3.1), or undefined. */
function unfit(rrset: RRset, rrsig: Rrsig, signer: Signer, epochSeconds: number): PosternError | undefined {
  const what = describe(rrset);
  if (!rrsig.signer.equals(signer.name) || !maySign(rrset, rrsig.signer)) {
    return new PosternError(
      'ERR_DNS_SIGNATURE_MISSING',
      `${what} is signed by ${rrsig.signer}, not by ${signer.name}`,
    );
  }
  const labels = countedLabels(rrset.name);
  const expanded = rrsig.labels < labels;
  if (rrsig.labels > labels || rrsig.labels < signer.name.labelCount) {
    return new PosternError('ERR_DNS_BOGUS', `the signature of ${what} counts ${rrsig.labels} labels`);
  }
  if (expanded && NEVER_EXPANDED.has(rrset.type)) {
    return new PosternError('ERR_DNS_BOGUS', `${what} was expanded from a wildcard`);
  }
  const late = outOfPeriod(what, rrsig, epochSeconds);
  if (late !== undefined) return late;
  if (signingAlgorithm(rrsig.algorithm) === undefined) {
    return new PosternError('ERR_DNS_BOGUS', `${what} is signed with ${algorithmName(rrsig.algorithm)} only`);
  }
  if (signer.keys.find(rrsig.algorithm, rrsig.keyTag).length === 0) {
    return new PosternError(
      'ERR_DNS_KEY_MISSING',
      `${signer.name} has no key ${keyText(rrsig)} that signed ${what}`,
    );
  }
  return undefined;
}

/** The signer is the zone that holds the RRset; a DS stands in the parent's (RFC 4035 section 2.4). */
export function maySign(
  rrset: { readonly name: DomainName; readonly type: number },
  signer: DomainName,
): boolean {
  if (rrset.type === TYPE.DS) return rrset.name.isBelow(signer) || rrset.name.isRoot;
  if (APEX_ONLY.has(rrset.type)) return rrset.name.equals(signer);
  return rrset.name.isWithin(signer);
}

function outOfPeriod(what: string, rrsig: Rrsig, epochSeconds: number): PosternError | undefined {
  const period = periodAt(rrsig, epochSeconds);
  if (period === 'valid') return undefined;
  const now = isoTime(epochSeconds);
  const by = `the signature of ${what} by ${rrsig.signer}`;
  if (period === 'expired') {
    const when = isoTime(nearest(rrsig.expiration, epochSeconds));
    return new PosternError('ERR_DNS_EXPIRED', `${by} expired at ${when}; the clock says ${now}`);
  }
  if (period === 'not-yet-valid') {
    const when = isoTime(nearest(rrsig.inception, epochSeconds));
    return new PosternError('ERR_DNS_NOT_YET_VALID', `${by} is valid from ${when}; the clock says ${now}`);
  }
  return new PosternError('ERR_DNS_EXPIRED', `${by} expires before it begins`);
}

/** The moment nearest to now that a 32-bit serial time can mean. */
function nearest(serial: number, epochSeconds: number): number {
  return epochSeconds + ((serial - (epochSeconds >>> 0)) | 0);
}

function isoTime(epochSeconds: number): string {
  return `${new Date(epochSeconds * 1000).toISOString().slice(0, 19)}Z`;
}

function accepted(rrset: RRset, rrsig: Rrsig, epochSeconds: number): Verified {
  const left = (rrsig.expiration - (epochSeconds >>> 0)) | 0;
  return {
    rrsig,
    ttlSeconds: Math.min(rrset.ttlSeconds, rrsig.originalTtl, left),
    expandedFrom: rrsig.labels < countedLabels(rrset.name) ? rrset.name.suffix(rrsig.labels) : undefined,
  };
}

export function keyText(key: { readonly keyTag: number; readonly algorithm: number }): string {
  return `${key.keyTag} (${algorithmName(key.algorithm)})`;
}

export function describe(rrset: { readonly name: DomainName; readonly type: number }): string {
  return `${rrset.name} ${typeName(rrset.type)}`;
}
