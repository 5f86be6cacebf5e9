import { DomainName } from './name.ts';

/** RFC 4034 section 3.1; times are seconds modulo 2^32. */
export interface Rrsig {
  readonly typeCovered: number;
  readonly algorithm: number;
  readonly labels: number;
  readonly originalTtl: number;
  readonly expiration: number;
  readonly inception: number;
  readonly keyTag: number;
  readonly signer: DomainName;
  readonly signature: Buffer;
  readonly rdata: Buffer;
}

const FIXED_BYTES = 18;

/** From canonical rdata (the reader has walked it: 18 octets, a name, the rest). */
export function parseRrsig(rdata: Buffer): Rrsig | undefined {
  const nameEnd = endOfName(rdata, FIXED_BYTES);
  if (nameEnd === undefined) return undefined;
  return {
    typeCovered: rdata.readUInt16BE(0),
    algorithm: rdata.readUInt8(2),
    labels: rdata.readUInt8(3),
    originalTtl: rdata.readUInt32BE(4),
    expiration: rdata.readUInt32BE(8),
    inception: rdata.readUInt32BE(12),
    keyTag: rdata.readUInt16BE(16),
    signer: DomainName.fromKey(rdata.toString('latin1', FIXED_BYTES, nameEnd)),
    signature: rdata.subarray(nameEnd),
    rdata,
  };
}

/** The offset behind an uncompressed name, or undefined where it is not all there. */
export function endOfName(octets: Buffer, start: number): number | undefined {
  let at = start;
  for (;;) {
    const length = octets[at];
    if (length === undefined || length > 63 || at - start > 254) return undefined;
    at += length + 1;
    if (length === 0) return at;
  }
}

/** RFC 1982: `a` is at or after `b` on the circle of 2^32. */
export function serialAtLeast(a: number, b: number): boolean {
  return ((a - b) | 0) >= 0;
}

export type Period = 'valid' | 'expired' | 'not-yet-valid' | 'backwards';

/** RFC 4034 section 3.1.5 at a moment in epoch seconds. */
export function periodAt(rrsig: Rrsig, epochSeconds: number): Period {
  const now = epochSeconds >>> 0;
  if (!serialAtLeast(rrsig.expiration, rrsig.inception)) return 'backwards';
  if (!serialAtLeast(rrsig.expiration, now)) return 'expired';
  return serialAtLeast(now, rrsig.inception) ? 'valid' : 'not-yet-valid';
}

/** Labels of an owner as RFC 4034 section 3.1.3 counts them: without the root's, without a leading asterisk. */
export function countedLabels(owner: DomainName): number {
  return owner.labelCount - (owner.isWildcard ? 1 : 0);
}
