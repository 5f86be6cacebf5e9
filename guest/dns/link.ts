import type { DnssecState } from './authenticate.ts';
import { DomainName } from './name.ts';
import type { RRset } from './rrset.ts';
import { parseRrsig } from './rrsig.ts';
import { type Step, weakest, whyNotSecure } from './step.ts';

/** One proven link of an answer, as it is kept: what may be released, without the objects that proved it. */
export interface Link {
  readonly name: DomainName;
  readonly rrsets: readonly RRset[];
  /** Where an alias leads; the link is the last without it. */
  readonly target: DomainName | undefined;
  readonly rcode: number;
  readonly soa: RRset | undefined;
  /** The denial records that it rests on. */
  readonly proof: readonly RRset[];
  readonly state: Exclude<DnssecState, 'bogus'>;
  /** Why it is not secure; empty when it is. */
  readonly reason: string;
}

const STATES = ['secure', 'insecure', 'indeterminate'] as const;
/** Stands for the link's own name, which most of its records have; no name begins so. */
const OWN_NAME = 0xff;

export function toLink(step: Step): Link {
  const worst = weakest(step.parts);
  return {
    name: step.name,
    rrsets: step.rrsets,
    target: step.kind === 'alias' ? step.target : undefined,
    rcode: step.rcode,
    soa: step.soa,
    proof: step.parts.flatMap((part) => part.proof ?? []),
    state: worst?.state ?? 'indeterminate',
    reason: worst === undefined ? '' : whyNotSecure(worst),
  };
}

/**
 * All of a link but its name, one octet to a character. A flat string is the least that can be kept: records as objects
 * take ten times their octets, and a small Buffer holds the whole slab that it was cut from.
 */
export function packLink({ name, rrsets, target, rcode, soa, proof, state, reason }: Link): string {
  const parts = [
    String.fromCharCode(STATES.indexOf(state)),
    uint16(rcode),
    target === undefined ? '\0' : `\x01${target.key}`,
  ];
  for (const list of [rrsets, proof, soa === undefined ? [] : [soa]]) {
    parts.push(uint16(list.length));
    for (const rrset of list) packRRset(parts, rrset, name);
  }
  parts.push(Buffer.from(reason, 'utf8').toString('latin1'));
  return parts.join('');
}

/** `name` is the one that the link was packed with. The records share one buffer. */
export function unpackLink(packed: string, name: DomainName): Link {
  const reader = new LinkReader(packed, name);
  return {
    name,
    state: STATES[reader.uint8()] ?? 'indeterminate',
    rcode: reader.uint16(),
    target: reader.uint8() === 0 ? undefined : reader.name(),
    rrsets: reader.rrsets(),
    proof: reader.rrsets(),
    soa: reader.rrsets()[0],
    reason: reader.rest(),
  };
}

function packRRset(parts: string[], rrset: RRset, own: DomainName): void {
  parts.push(rrset.name.equals(own) ? String.fromCharCode(OWN_NAME) : rrset.name.key);
  parts.push(uint16(rrset.type), uint16(rrset.ttlSeconds >>> 16), uint16(rrset.ttlSeconds & 0xffff));
  for (const list of [rrset.rdata, rrset.signatures.map(({ rdata }) => rdata)]) {
    parts.push(uint16(list.length));
    for (const rdata of list) parts.push(uint16(rdata.length), rdata.toString('latin1'));
  }
}

function uint16(value: number): string {
  return String.fromCharCode(value >> 8, value & 0xff);
}

/** Reads what `packLink` wrote, which nobody else can have touched: nothing is checked. */
class LinkReader {
  readonly #octets: Buffer;
  readonly #own: DomainName;
  #at = 0;

  constructor(packed: string, own: DomainName) {
    this.#octets = Buffer.from(packed, 'latin1');
    this.#own = own;
  }

  uint8(): number {
    this.#at += 1;
    return this.#octets.readUInt8(this.#at - 1);
  }

  uint16(): number {
    this.#at += 2;
    return this.#octets.readUInt16BE(this.#at - 2);
  }

  name(): DomainName {
    const start = this.#at;
    if (this.#octets[start] === OWN_NAME) {
      this.#at += 1;
      return this.#own;
    }
    for (let length = this.uint8(); length > 0; length = this.uint8()) this.#at += length;
    return DomainName.fromKey(this.#octets.toString('latin1', start, this.#at));
  }

  rrsets(): RRset[] {
    return Array.from({ length: this.uint16() }, () => ({
      name: this.name(),
      type: this.uint16(),
      ttlSeconds: this.uint16() * 0x10000 + this.uint16(),
      rdata: this.#blocks(),
      signatures: this.#blocks().flatMap((rdata) => parseRrsig(rdata) ?? []),
    }));
  }

  rest(): string {
    return this.#octets.toString('utf8', this.#at);
  }

  #blocks(): Buffer[] {
    return Array.from({ length: this.uint16() }, () => {
      const length = this.uint16();
      this.#at += length;
      return this.#octets.subarray(this.#at - length, this.#at);
    });
  }
}
