import { isPosternError, PosternError } from '../../shared/errors.ts';
import type { TrustAnchor } from './anchors.ts';
import { type Ds, dsMatches, usableDs } from './ds.ts';
import { KeyRing, parseZoneKey, type ZoneKey } from './keys.ts';
import { overLimit, type Work } from './limits.ts';
import type { DomainName } from './name.ts';
import type { Response, RRset } from './rrset.ts';
import { TYPE } from './types.ts';
import { keyText } from './verify.ts';

/** The key set that a zone publishes, not yet proven. */
export interface PublishedKeys {
  readonly rrset: RRset;
  readonly zoneKeys: readonly ZoneKey[];
}

/** RFC 4035 section 5.2 for an anchor: what cannot be checked by anybody here is unsigned, not broken. */
export function isUsableAnchor(anchor: TrustAnchor): boolean {
  return usableDs(anchor.ds).length > 0 || anchor.keys.some((rdata) => parseZoneKey(rdata) !== undefined);
}

/** @throws PosternError ERR_DNS_KEY_MISSING */
export function publishedKeys(response: Response, name: DomainName): PublishedKeys {
  const rrset = response.answer.find(name, TYPE.DNSKEY);
  if (rrset === undefined) {
    throw new PosternError(
      'ERR_DNS_KEY_MISSING',
      `${response.from} has no DNSKEY for ${name}, which is signed`,
    );
  }
  const zoneKeys = rrset.rdata.map((rdata) => parseZoneKey(rdata)).filter((key) => key !== undefined);
  return { rrset, zoneKeys };
}

/** The published keys that DS records vouch for; the records tried are bounded, not those that name no key. */
export function matchDs(
  records: readonly Ds[],
  name: DomainName,
  keys: readonly ZoneKey[],
  work: Work,
): ZoneKey[] {
  const { dsPerZone, keysPerTag } = work.limits;
  const matches: ZoneKey[] = [];
  const ring = new KeyRing(keys);
  let tried = 0;
  let isCrowded = false;
  for (const ds of records) {
    const alike = ring.find(ds.algorithm, ds.keyTag);
    if (alike.length === 0) continue;
    if (tried === dsPerZone) {
      if (matches.length > 0) break;
      throw overLimit(`more than ${dsPerZone} DS records of ${name}`);
    }
    tried += 1;
    isCrowded ||= alike.length > keysPerTag;
    for (const key of alike.slice(0, keysPerTag)) {
      if (!matches.includes(key) && dsMatches(ds, name, key)) matches.push(key);
    }
  }
  if (isCrowded && matches.length === 0) {
    throw overLimit(`more than ${keysPerTag} keys of ${name} with the tag of its DS`);
  }
  return matches;
}

/** The clear message for an anchor that leads nowhere. */
export function anchorMismatch(anchor: TrustAnchor, keys: readonly ZoneKey[]): PosternError {
  const anchors = [
    ...anchor.ds,
    ...anchor.keys.map((rdata) => parseZoneKey(rdata)).filter((key) => key !== undefined),
  ];
  const trusted = anchors.map((one) => ('keyTag' in one ? keyText(one) : '')).join(', ');
  const published = keys.map((key) => keyText(key)).join(', ');
  const reason = `the trust anchor of ${anchor.name} (${trusted || 'unusable'}) matches none of the keys that are published (${published || 'none'}): the anchor is out of date, or somebody answers for ${anchor.name} who is not it`;
  return new PosternError('ERR_DNS_ANCHOR', reason);
}

/** Keys of an anchored zone out of their period are more often a wrong clock here than an unsigned week there. */
export function withClockHint(error: unknown): unknown {
  if (!isPosternError(error) || (error.code !== 'ERR_DNS_EXPIRED' && error.code !== 'ERR_DNS_NOT_YET_VALID'))
    return error;
  return new PosternError(error.code, `${error.message}: is this clock right?`, { cause: error });
}
