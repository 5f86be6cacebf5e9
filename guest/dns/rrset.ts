import type { Message, ResourceRecord } from './message.ts';
import { DomainName } from './name.ts';
import { parseRrsig, type Rrsig } from './rrsig.ts';
import { CLASS_IN, TYPE } from './types.ts';

/** The records of one name and type, class IN, with the signatures that came in the same section. */
export interface RRset {
  readonly name: DomainName;
  readonly type: number;
  /** The least TTL among the records (RFC 2181 section 5.2). */
  readonly ttlSeconds: number;
  /** Canonical rdata in canonical order, duplicates removed (RFC 4034 section 6.3). */
  readonly rdata: readonly Buffer[];
  readonly signatures: readonly Rrsig[];
}

/** The RRsets of a section, found by name and type; class other than IN and lone signatures are left out. */
export class Section {
  readonly rrsets: readonly RRset[];
  readonly #index = new Map<string, RRset>();

  constructor(records: readonly ResourceRecord[]) {
    this.rrsets = groupRecords(records);
    for (const rrset of this.rrsets) this.#index.set(`${rrset.type} ${rrset.name.key}`, rrset);
  }

  find(name: DomainName, type: number): RRset | undefined {
    return this.#index.get(`${type} ${name.key}`);
  }

  at(name: DomainName): RRset[] {
    return this.rrsets.filter((rrset) => rrset.name.equals(name));
  }

  ofType(type: number): RRset[] {
    return this.rrsets.filter((rrset) => rrset.type === type);
  }
}

/** A message as the validator looks at it. */
export interface Response {
  readonly rcode: number;
  readonly answer: Section;
  readonly authority: Section;
  /** True where any signature came at all; an answer with none may have been stripped. */
  readonly hasSignatures: boolean;
  /** In all sections. */
  readonly recordCount: number;
  /** The resolver that gave it, for a person. */
  readonly from: string;
}

export function toResponse(message: Message, from: string): Response {
  const signed = (record: ResourceRecord): boolean => record.type === TYPE.RRSIG;
  return {
    rcode: message.rcode,
    answer: new Section(message.answer),
    authority: new Section(message.authority),
    hasSignatures: message.answer.some(signed) || message.authority.some(signed),
    recordCount: message.answer.length + message.authority.length + message.additional.length,
    from,
  };
}

function groupRecords(records: readonly ResourceRecord[]): RRset[] {
  const groups = new Map<string, ResourceRecord[]>();
  const signatures = new Map<string, Rrsig[]>();
  for (const record of records) {
    if (record.class !== CLASS_IN) continue;
    if (record.type === TYPE.RRSIG) {
      const rrsig = parseRrsig(record.rdata);
      if (rrsig !== undefined) append(signatures, `${rrsig.typeCovered} ${record.name.key}`, rrsig);
    } else {
      append(groups, `${record.type} ${record.name.key}`, record);
    }
  }
  return [...groups].map(([key, group]) => toRrset(group, signatures.get(key) ?? []));
}

function append<T>(map: Map<string, T[]>, key: string, value: T): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

function toRrset(group: readonly ResourceRecord[], signatures: readonly Rrsig[]): RRset {
  const [first] = group;
  if (first === undefined) throw new Error('an RRset has at least one record');
  return {
    name: first.name,
    type: first.type,
    ttlSeconds: group.reduce((least, record) => Math.min(least, record.ttlSeconds), first.ttlSeconds),
    rdata: sortUnique(group.map((record) => record.rdata)),
    signatures: uniqueSignatures(signatures),
  };
}

/** RFC 4034 section 6.3: rdata as left-justified octets; RFC 2181 section 5: no duplicates. */
export function sortUnique(rdata: readonly Buffer[]): Buffer[] {
  if (rdata.length === 1) return [...rdata];
  const sorted = [...rdata].sort(Buffer.compare);
  return sorted.filter((octets, index) => index === 0 || sorted[index - 1]?.equals(octets) !== true);
}

function uniqueSignatures(signatures: readonly Rrsig[]): Rrsig[] {
  if (signatures.length < 2) return [...signatures];
  const byOctets = new Map(signatures.map((rrsig) => [rrsig.rdata.toString('latin1'), rrsig]));
  return [...byOctets.values()];
}

/** The target of a CNAME or DNAME RRset; undefined where it has more than one record and so means nothing. */
export function aliasTarget(rrset: RRset): DomainName | undefined {
  const [only, second] = rrset.rdata;
  return only === undefined || second !== undefined ? undefined : DomainName.fromKey(only.toString('latin1'));
}
