import type { DomainName } from './name.ts';
import { canonicalRdata } from './rdata.ts';
import { TYPE } from './types.ts';
import { malformed, readName } from './wire-name.ts';

/** 65,535 octets hold at most 5,957 records; an honest answer has a few dozen. */
export const RECORDS_MAX = 4096;
export const HEADER_BYTES = 12;

export const FLAG = {
  QR: 0x8000,
  AA: 0x0400,
  TC: 0x0200,
  RD: 0x0100,
  RA: 0x0080,
  AD: 0x0020,
  CD: 0x0010,
} as const;

export interface Question {
  readonly name: DomainName;
  readonly type: number;
  readonly class: number;
}

/** One resource record. `rdata` is canonical (RFC 4034 section 6.2) and its own copy. */
export interface ResourceRecord {
  readonly name: DomainName;
  readonly type: number;
  readonly class: number;
  readonly ttlSeconds: number;
  readonly rdata: Buffer;
}

export interface Edns {
  readonly payloadBytes: number;
  readonly dnssecOk: boolean;
  readonly version: number;
}

export interface Message {
  readonly id: number;
  readonly flags: number;
  /** The extended rcode (RFC 6891 section 6.1.3) joined to the header's. */
  readonly rcode: number;
  readonly question: Question | undefined;
  readonly answer: readonly ResourceRecord[];
  readonly authority: readonly ResourceRecord[];
  readonly additional: readonly ResourceRecord[];
  readonly edns: Edns | undefined;
}

/**
 * Walks a received message. Work is linear in its octets: records and pointer hops are capped, every record must
 * consume its rdlength exactly, and nothing may follow the last.
 * @throws PosternError ERR_DNS_MALFORMED
 */
export function readMessage(wire: Buffer): Message {
  if (wire.length < HEADER_BYTES) throw malformed('the header is cut off', 0);
  const counts = [4, 6, 8, 10].map((offset) => wire.readUInt16BE(offset)) as [number, number, number, number];
  const [questions, answers, authorities, additionals] = counts;
  if (questions > 1) throw malformed('more than one question', 4);
  if (answers + authorities + additionals > RECORDS_MAX) throw malformed('too many records', 6);
  let at = HEADER_BYTES;
  let question: Question | undefined;
  if (questions === 1) {
    const { name, end } = readName(wire, at, wire.length);
    if (end + 4 > wire.length) throw malformed('the question is cut off', at);
    question = { name, type: wire.readUInt16BE(end), class: wire.readUInt16BE(end + 2) };
    at = end + 4;
  }
  const sections: ResourceRecord[][] = [[], [], []];
  for (const [index, count] of [answers, authorities, additionals].entries()) {
    for (let left = count; left > 0; left -= 1) {
      const { record, end } = readRecord(wire, at);
      sections[index]?.push(record);
      at = end;
    }
  }
  if (at !== wire.length) throw malformed('octets behind the last record', at);
  return assemble(wire, question, sections);
}

function readRecord(wire: Buffer, at: number): { record: ResourceRecord; end: number } {
  const { name, end: fixed } = readName(wire, at, wire.length);
  const start = fixed + 10;
  if (start > wire.length) throw malformed('a record is cut off', at);
  const type = wire.readUInt16BE(fixed);
  const ttl = wire.readUInt32BE(fixed + 4);
  const end = start + wire.readUInt16BE(fixed + 8);
  if (end > wire.length) throw malformed('rdata runs past the message', at);
  const record = {
    name,
    type,
    class: wire.readUInt16BE(fixed + 2),
    // RFC 2181 section 8: a TTL with its top bit set is zero. OPT keeps its 32 bits.
    ttlSeconds: type !== TYPE.OPT && ttl > 0x7fffffff ? 0 : ttl,
    rdata: canonicalRdata(wire, type, start, end),
  };
  return { record, end };
}

function assemble(wire: Buffer, question: Question | undefined, sections: ResourceRecord[][]): Message {
  const [answer = [], authority = [], rest = []] = sections;
  const options = rest.filter((record) => record.type === TYPE.OPT);
  if (options.length > 1) throw malformed('more than one OPT record', 0);
  const opt = options[0];
  const flags = wire.readUInt16BE(2);
  const edns = opt && {
    payloadBytes: opt.class,
    dnssecOk: (opt.ttlSeconds & 0x8000) !== 0,
    version: (opt.ttlSeconds >>> 16) & 0xff,
  };
  return {
    id: wire.readUInt16BE(0),
    flags,
    rcode: (flags & 0xf) | (opt === undefined ? 0 : (opt.ttlSeconds >>> 24) << 4),
    question,
    answer,
    authority,
    additional: rest.filter((record) => record.type !== TYPE.OPT),
    edns,
  };
}
