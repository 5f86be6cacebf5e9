import type { RRset } from './rrset.ts';
import { countedLabels, type Rrsig } from './rrsig.ts';
import { CLASS_IN } from './types.ts';

/**
 * The octets that were signed (RFC 4034 section 3.1.8.1, RFC 4035 section 5.3.2): the RRSIG without its signature,
 * then every record with the owner that was signed (the wildcard, where `labels` says so) and the original TTL.
 */
export function signedData(rrset: RRset, rrsig: Rrsig): Buffer {
  const owner =
    rrsig.labels < countedLabels(rrset.name)
      ? Buffer.concat([Buffer.from('\x01*', 'latin1'), rrset.name.suffix(rrsig.labels).wire])
      : rrset.name.wire;
  const head = Buffer.alloc(owner.length + 8);
  owner.copy(head);
  head.writeUInt16BE(rrset.type, owner.length);
  head.writeUInt16BE(CLASS_IN, owner.length + 2);
  head.writeUInt32BE(rrsig.originalTtl, owner.length + 4);
  const parts: Buffer[] = [rrsig.rdata.subarray(0, rrsig.rdata.length - rrsig.signature.length)];
  for (const rdata of rrset.rdata) {
    const length = Buffer.alloc(2);
    length.writeUInt16BE(rdata.length);
    parts.push(head, length, rdata);
  }
  return Buffer.concat(parts);
}
