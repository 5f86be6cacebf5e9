import { TYPE } from './types.ts';
import { malformed, readName } from './wire-name.ts';

/**
 * How the rdata of a type is laid out, as far as names are in it: a number of plain octets, a `name`, a
 * character-string, the A6 address suffix, or the rest. Types that are not here are kept octet for octet.
 */
type Field = number | 'name' | 'string' | 'a6' | 'rest';

/** The types of RFC 4034 section 6.2 as RFC 6840 section 5.1 corrects it: HINFO holds no name, NSEC is not lowered. */
const LAYOUTS = new Map<number, readonly Field[]>([
  [TYPE.A, [4]],
  [TYPE.AAAA, [16]],
  [TYPE.NS, ['name']],
  [3, ['name']], // MD
  [4, ['name']], // MF
  [TYPE.CNAME, ['name']],
  [TYPE.SOA, ['name', 'name', 20]],
  [7, ['name']], // MB
  [8, ['name']], // MG
  [9, ['name']], // MR
  [TYPE.PTR, ['name']],
  [14, ['name', 'name']], // MINFO
  [TYPE.MX, [2, 'name']],
  [17, ['name', 'name']], // RP
  [18, [2, 'name']], // AFSDB
  [21, [2, 'name']], // RT
  [24, [18, 'name', 'rest']], // SIG
  [26, [2, 'name', 'name']], // PX
  [30, ['name', 'rest']], // NXT
  [TYPE.SRV, [6, 'name']],
  [TYPE.NAPTR, [4, 'string', 'string', 'string', 'name']],
  [36, [2, 'name']], // KX
  [38, ['a6']],
  [TYPE.DNAME, ['name']],
  [TYPE.RRSIG, [18, 'name', 'rest']],
]);

/** RFC 1035 section 3.2.1: RDLENGTH has 16 bits. */
const RDATA_MAX_BYTES = 0xffff;

/**
 * The rdata in canonical form: names uncompressed and lowered. The layout must fill `start` to `end` exactly,
 * since a record that claims another length than it has shifts everything behind it.
 * @throws PosternError ERR_DNS_MALFORMED
 */
export function canonicalRdata(message: Buffer, type: number, start: number, end: number): Buffer {
  const layout = LAYOUTS.get(type);
  if (layout === undefined) return Buffer.from(message.subarray(start, end));
  const parts: Buffer[] = [];
  let at = start;
  for (const field of layout) {
    const next = fieldEnd(message, field, at, end, parts);
    if (next > end) throw malformed('rdata is shorter than its type', start);
    at = next;
  }
  if (at !== end) throw malformed('rdata is longer than its type', start);
  const whole = parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
  // A name that was compressed may just bring it over what a length can say, and so over what could be sent on.
  if (whole.length > RDATA_MAX_BYTES) throw malformed('rdata is too long with its names written out', start);
  return whole;
}

function fieldEnd(message: Buffer, field: Field, at: number, end: number, parts: Buffer[]): number {
  if (field === 'name') {
    const { name, end: next } = readName(message, at, end);
    parts.push(name.wire);
    return next;
  }
  if (field === 'a6') {
    const prefix = message[at] ?? 255;
    const plain = at + 1 + ((128 - Math.min(prefix, 128)) >> 3) + (prefix % 8 === 0 ? 0 : 1);
    parts.push(Buffer.from(message.subarray(at, plain)));
    return prefix === 0 || plain >= end ? plain : fieldEnd(message, 'name', plain, end, parts);
  }
  const size = field === 'rest' ? end - at : field === 'string' ? 1 + (message[at] ?? 0) : field;
  parts.push(Buffer.from(message.subarray(at, at + size)));
  return at + size;
}
