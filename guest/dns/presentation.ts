import { DomainName } from './name.ts';
import { endOfName } from './rrsig.ts';
import { TYPE, typeName } from './types.ts';

/** Rdata as a zone file writes it, for the common types; `\# length hex` (RFC 3597 section 5) for the rest. */
export function rdataText(type: number, rdata: Buffer): string {
  return known(type, rdata) ?? generic(rdata);
}

function generic(rdata: Buffer): string {
  return rdata.length === 0 ? '\\# 0' : `\\# ${rdata.length} ${rdata.toString('hex')}`;
}

function known(type: number, rdata: Buffer): string | undefined {
  switch (type) {
    case TYPE.A:
      return rdata.length === 4 ? rdata.join('.') : undefined;
    case TYPE.AAAA:
      return rdata.length === 16 ? ipv6Text(rdata) : undefined;
    case TYPE.NS:
    case TYPE.CNAME:
    case TYPE.PTR:
    case TYPE.DNAME:
      return names(rdata, 0, 1);
    case TYPE.MX:
      return numbered(rdata, [2], names(rdata, 2, 1));
    case TYPE.SRV:
      return numbered(rdata, [2, 2, 2], names(rdata, 6, 1));
    case TYPE.SOA:
      return soaText(rdata);
    case TYPE.TXT:
      return strings(rdata);
    case TYPE.DS:
      return numbered(rdata, [2, 1, 1], rdata.subarray(4).toString('hex'));
    case TYPE.DNSKEY:
      return numbered(rdata, [2, 1, 1], rdata.subarray(4).toString('base64'));
    default:
      return undefined;
  }
}

/** RFC 5952. */
export function ipv6Text(octets: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, index) => octets.readUInt16BE(index * 2).toString(16));
  const text = groups.join(':');
  const zeros = [...text.matchAll(/(?:^|:)0(?::0)+(?=:|$)/g)].sort((a, b) => b[0].length - a[0].length)[0];
  if (zeros === undefined) return text;
  const head = text.slice(0, zeros.index);
  const tail = text.slice(zeros.index + zeros[0].length).replace(/^:/, '');
  return `${head}::${tail}`;
}

function names(rdata: Buffer, start: number, count: number): string | undefined {
  const found: string[] = [];
  let at = start;
  for (let left = count; left > 0; left -= 1) {
    const end = endOfName(rdata, at);
    if (end === undefined) return undefined;
    found.push(DomainName.fromKey(rdata.toString('latin1', at, end)).toString());
    at = end;
  }
  return found.join(' ');
}

function numbered(rdata: Buffer, sizes: readonly number[], rest: string | undefined): string | undefined {
  const fields: string[] = [];
  let at = 0;
  for (const size of sizes) {
    if (at + size > rdata.length) return undefined;
    fields.push(String(rdata.readUIntBE(at, size)));
    at += size;
  }
  return rest === undefined ? undefined : [...fields, rest].join(' ');
}

function soaText(rdata: Buffer): string | undefined {
  const text = names(rdata, 0, 2);
  if (text === undefined || rdata.length < 20) return undefined;
  const numbers = rdata.subarray(rdata.length - 20);
  return [text, ...[0, 4, 8, 12, 16].map((offset) => numbers.readUInt32BE(offset))].join(' ');
}

function strings(rdata: Buffer): string | undefined {
  const parts: string[] = [];
  for (let at = 0; at < rdata.length; ) {
    const end = at + 1 + (rdata[at] ?? 0);
    if (end > rdata.length) return undefined;
    parts.push(quoted(rdata.toString('latin1', at + 1, end)));
    at = end;
  }
  return parts.join(' ');
}

function quoted(octets: string): string {
  const escaped = octets.replace(/[^ -~]|["\\]/g, (octet) =>
    /["\\]/.test(octet) ? `\\${octet}` : `\\${String(octet.charCodeAt(0)).padStart(3, '0')}`,
  );
  return `"${escaped}"`;
}

/** One record of a verdict as `postern resolve` prints it. */
export interface AnswerLine {
  readonly name: string;
  readonly type: string;
  readonly ttl: number;
  readonly data: string;
}

/** `ttlSeconds` is what was proven; a record's own may have been changed on the way. */
export function answerLines(
  rrset: {
    readonly name: DomainName;
    readonly type: number;
    readonly ttlSeconds: number;
    readonly rdata: readonly Buffer[];
  },
  ttlSeconds: number,
): AnswerLine[] {
  return rrset.rdata.map((rdata) => ({
    name: rrset.name.toString(),
    type: typeName(rrset.type),
    ttl: Math.min(rrset.ttlSeconds, ttlSeconds),
    data: rdataText(rrset.type, rdata),
  }));
}
