import type { TypeBitmap } from './bitmap.ts';
import type { DomainName } from './name.ts';
import { TYPE } from './types.ts';

/** What denial records prove of a name and type. */
export type Denial =
  /** The name has no such type. `types` is what it has, where a record of the name itself says so. */
  | {
      readonly kind: 'nodata';
      readonly types?: TypeBitmap;
      readonly wildcard?: boolean;
      /** An opt-out span: an unsigned delegation may be hidden there, so the state is insecure. */
      readonly optOut?: boolean;
    }
  | { readonly kind: 'nxdomain'; readonly optOut?: boolean }
  /** Authentic, but too dear to evaluate (RFC 9276 section 3.2): insecure. */
  | { readonly kind: 'unchecked'; readonly reason: string }
  | { readonly kind: 'unproven'; readonly reason: string };

export function notProven(reason: string): Denial {
  return { kind: 'unproven', reason };
}

/** A delegation seen from above: NS without SOA. */
export function isAncestorDelegation(types: TypeBitmap): boolean {
  return types.has(TYPE.NS) && !types.has(TYPE.SOA);
}

/**
 * The record at a name denies a type of it: neither the type nor a CNAME is there, and the record is from the right side
 * of a zone cut (RFC 6840 section 4.1 and 4.3, RFC 5155 section 8.5 and 8.6).
 */
export function deniesType(types: TypeBitmap, name: DomainName, type: number): boolean {
  if (types.has(type) || (types.has(TYPE.CNAME) && type !== TYPE.CNAME)) return false;
  if (type === TYPE.DS) return name.isRoot || !types.has(TYPE.SOA);
  if (isAncestorDelegation(types)) return false;
  return type !== TYPE.ANY || types.hasOnly([TYPE.RRSIG, TYPE.NSEC]);
}
