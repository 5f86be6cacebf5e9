import { TypeBitmap } from './bitmap.ts';
import { type Denial, deniesType, isAncestorDelegation, notProven } from './denial.ts';
import { DomainName } from './name.ts';
import type { RRset } from './rrset.ts';
import { endOfName } from './rrsig.ts';
import { TYPE } from './types.ts';

/** An authentic NSEC record (RFC 4034 section 4) of one zone. */
export interface Nsec {
  readonly owner: DomainName;
  readonly next: DomainName;
  readonly types: TypeBitmap;
}

/**
 * From a verified RRset of `zone`. Undefined for a record that proves nothing: several at one owner, a next name outside
 * the zone, or a span of no width anywhere but at the apex (where it means a zone of one name).
 */
export function parseNsec(rrset: RRset, zone: DomainName): Nsec | undefined {
  const [rdata, second] = rrset.rdata;
  if (rdata === undefined || second !== undefined) return undefined;
  const end = endOfName(rdata, 0);
  if (end === undefined) return undefined;
  const next = DomainName.fromKey(
    rdata.toString('latin1', 0, end).replace(/[A-Z]+/g, (letters) => letters.toLowerCase()),
  );
  const types = TypeBitmap.parse(rdata.subarray(end));
  if (types === undefined || !next.isWithin(zone) || !rrset.name.isWithin(zone)) return undefined;
  if (!next.equals(zone) && next.compare(rrset.name) <= 0) return undefined;
  return { owner: rrset.name, next, types };
}

/** What the NSEC records of `zone` prove of (`name`, `type`). */
export function denyByNsec(
  records: readonly Nsec[],
  zone: DomainName,
  name: DomainName,
  type: number,
  nameError: boolean,
): Denial {
  const match = records.find((record) => record.owner.equals(name));
  if (match !== undefined) {
    if (deniesType(match.types, name, type)) return { kind: 'nodata', types: match.types };
    return notProven(`the NSEC of ${name} does not deny the type`);
  }
  const cover = records.find((record) => covers(record, zone, name));
  if (cover === undefined) return notProven(`no NSEC of ${zone} covers ${name}`);
  // The next name is below ours: ours exists, as an empty non-terminal (RFC 4592 section 2.2.2).
  if (cover.next.isBelow(name)) return { kind: 'nodata' };
  const encloser = closestEncloser(cover, name);
  const wildcard = encloser.wildcardChild();
  if (wildcard === undefined) return nameError ? { kind: 'nxdomain' } : notProven('no wildcard can exist');
  const atWildcard = records.find((record) => record.owner.equals(wildcard));
  if (nameError) return denyWildcard(records, zone, wildcard, atWildcard);
  if (atWildcard === undefined) return notProven(`no NSEC says what ${wildcard} holds`);
  if (!deniesType(atWildcard.types, wildcard, type)) {
    return notProven(`the NSEC of ${wildcard} does not deny the type`);
  }
  return { kind: 'nodata', wildcard: true };
}

function denyWildcard(
  records: readonly Nsec[],
  zone: DomainName,
  wildcard: DomainName,
  atWildcard: Nsec | undefined,
): Denial {
  if (atWildcard !== undefined) return notProven(`${wildcard} exists`);
  const cover = records.find((record) => covers(record, zone, wildcard));
  if (cover === undefined) return notProven(`no NSEC of ${zone} covers ${wildcard}`);
  return cover.next.isBelow(wildcard) ? notProven(`${wildcard} exists`) : { kind: 'nxdomain' };
}

/** RFC 4035 section 5.3.4: `name` does not exist and no wildcard is closer to it than the one below `encloser`. */
export function allowsExpansionByNsec(
  records: readonly Nsec[],
  zone: DomainName,
  name: DomainName,
  encloser: DomainName,
): boolean {
  return records.some(
    (record) =>
      covers(record, zone, name) &&
      !record.next.isBelow(name) &&
      closestEncloser(record, name).equals(encloser),
  );
}

/** `name` lies strictly between owner and next; the last record of a zone reaches to its end. */
function covers(record: Nsec, zone: DomainName, name: DomainName): boolean {
  if (!name.isBelow(zone) || record.owner.compare(name) >= 0) return false;
  // RFC 6840 section 4.1: what is below a delegation or a DNAME is not this zone's to deny.
  if (name.isBelow(record.owner) && (isAncestorDelegation(record.types) || record.types.has(TYPE.DNAME))) {
    return false;
  }
  return record.next.equals(zone) || name.compare(record.next) < 0;
}

/** The deepest name above `name` that the covering record shows to exist. */
function closestEncloser(cover: Nsec, name: DomainName): DomainName {
  const byOwner = name.commonAncestor(cover.owner);
  const byNext = name.commonAncestor(cover.next);
  return byOwner.labelCount >= byNext.labelCount ? byOwner : byNext;
}
