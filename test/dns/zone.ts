import { hash } from 'node:crypto';
import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import {
  bitmapRdata,
  emptyMessage,
  nameRdata,
  numbers,
  type TestMessage,
  type TestRecord,
} from './encode.ts';
import { newKey, type SigningOptions, signRrset, type TestKey } from './signer.ts';

export interface ZoneOptions {
  readonly algorithm?: number;
  readonly denial?: 'nsec' | 'nsec3' | 'opt-out';
  readonly iterations?: number;
  readonly salt?: Buffer;
  /** An unsigned zone. */
  readonly signed?: boolean;
}

export const TTL_SECONDS = 3600;

/** A zone that signs itself as it is asked: the honest authority whose answers the tests then spoil. */
export class TestZone {
  readonly name: DomainName;
  readonly signed: boolean;
  keys: TestKey[];
  /** What signs everything but the key set; a key of `keys` unless a test says otherwise. */
  signingKeys: TestKey[];
  signing: Partial<SigningOptions> = {};
  readonly #options: ZoneOptions;
  readonly #rrsets = new Map<string, TestRecord[]>();

  constructor(name: string, options: ZoneOptions = {}) {
    this.name = DomainName.parse(name);
    this.#options = options;
    this.signed = options.signed ?? true;
    this.keys = this.signed ? [newKey(options.algorithm ?? 13)] : [];
    this.signingKeys = this.keys;
    const soa = Buffer.concat([
      nameRdata('ns.test.'),
      nameRdata('admin.test.'),
      numbers([1, 4], [1800, 4], [900, 4], [604800, 4], [300, 4]),
    ]);
    this.add(name, TYPE.SOA, soa);
    this.add(name, TYPE.NS, nameRdata('ns.test.'));
  }

  add(name: string, type: number, ...rdata: Buffer[]): this {
    const owner = DomainName.parse(name);
    const key = `${type} ${owner.key}`;
    const records = rdata.map((octets) => ({ name: owner, type, ttlSeconds: TTL_SECONDS, rdata: octets }));
    this.#rrsets.set(key, [...(this.#rrsets.get(key) ?? []), ...records]);
    return this;
  }

  remove(name: string, type: number): void {
    this.#rrsets.delete(`${type} ${DomainName.parse(name).key}`);
  }

  find(name: DomainName, type: number): TestRecord[] | undefined {
    if (type === TYPE.DNSKEY && name.equals(this.name) && this.signed) {
      return this.keys.map(({ rdata }) => ({ name, type, ttlSeconds: TTL_SECONDS, rdata }));
    }
    return this.#rrsets.get(`${type} ${name.key}`);
  }

  /** The delegation at or above a name, or undefined where the zone itself speaks for it. */
  cutAbove(name: DomainName): DomainName | undefined {
    for (let count = this.name.labelCount + 1; count <= name.labelCount; count += 1) {
      const cut = name.suffix(count);
      if (this.find(cut, TYPE.NS) !== undefined) return cut;
    }
    return undefined;
  }

  /** Without following aliases; the name is this zone's to answer. */
  answer(name: DomainName, type: number): TestMessage {
    const message = emptyMessage();
    const dname = this.#dnameAbove(name);
    if (dname !== undefined) return this.#throughDname(message, dname, name);
    const found = this.find(name, type) ?? this.find(name, TYPE.CNAME);
    if (found !== undefined) {
      message.answer.push(...found, ...this.sign(found));
      return message;
    }
    if (this.#exists(name)) {
      message.authority.push(...this.#soa(), ...this.denyType(name));
      return message;
    }
    return this.#fromWildcard(message, name, type);
  }

  /** The signatures of an RRset; none in an unsigned zone and none of a delegation's NS. */
  sign(rrset: readonly TestRecord[], options: Partial<SigningOptions> = {}): TestRecord[] {
    const [first] = rrset;
    if (first === undefined || (first.type === TYPE.NS && !first.name.equals(this.name))) return [];
    const keys = first.type === TYPE.DNSKEY ? this.keys.slice(0, 1) : this.signingKeys;
    return keys.map((key) => signRrset(rrset, key, { signer: this.name, ...this.signing, ...options }));
  }

  #dnameAbove(name: DomainName): TestRecord[] | undefined {
    for (let count = this.name.labelCount; count < name.labelCount; count += 1) {
      const dname = this.find(name.suffix(count), TYPE.DNAME);
      if (dname !== undefined) return dname;
    }
    return undefined;
  }

  #throughDname(message: TestMessage, dname: TestRecord[], name: DomainName): TestMessage {
    const [first] = dname;
    const base = first && DomainName.fromKey(first.rdata.toString('latin1'));
    const target = base && first && name.rebase(first.name, base);
    message.answer.push(...dname, ...this.sign(dname));
    if (target === undefined) message.rcode = 6;
    else message.answer.push({ name, type: TYPE.CNAME, ttlSeconds: TTL_SECONDS, rdata: target.wire });
    return message;
  }

  #fromWildcard(message: TestMessage, name: DomainName, type: number): TestMessage {
    let encloser = name.parent();
    while (!this.#exists(encloser)) encloser = encloser.parent();
    const wildcard = DomainName.parse(`*.${encloser.isRoot ? '' : encloser}`);
    const found = this.find(wildcard, type) ?? this.find(wildcard, TYPE.CNAME);
    const nextCloser = name.suffix(encloser.labelCount + 1);
    if (found !== undefined) {
      const expanded = found.map((record) => ({ ...record, name }));
      message.answer.push(...expanded, ...this.sign(found).map((record) => ({ ...record, name })));
      message.authority.push(...this.#cover(this.#hashed ? nextCloser : name));
      return message;
    }
    message.authority.push(...this.#soa());
    if (this.#hashed) message.authority.push(...this.#match(encloser), ...this.#cover(nextCloser));
    else message.authority.push(...this.#cover(name));
    if (this.#exists(wildcard)) {
      message.authority.push(...this.#match(wildcard));
    } else {
      message.rcode = 3;
      message.authority.push(...this.#cover(wildcard));
    }
    message.authority = [
      ...new Map(
        message.authority.map((one) => [`${one.name.key} ${one.type} ${one.rdata.toString('latin1')}`, one]),
      ).values(),
    ];
    return message;
  }

  #soa(): TestRecord[] {
    const soa = this.find(this.name, TYPE.SOA) ?? [];
    return [...soa, ...this.sign(soa)];
  }

  /** No data at a name that exists: the record that matches it, or for an opt-out delegation the one that covers it. */
  denyType(name: DomainName): TestRecord[] {
    if (!this.#hashed) {
      const own = this.#match(name);
      return own.length > 0 ? own : this.#cover(name);
    }
    const own = this.#match(name);
    return own.length > 0 ? own : [...this.#match(name.parent()), ...this.#cover(name)];
  }

  get #hashed(): boolean {
    return this.#options.denial === 'nsec3' || this.#options.denial === 'opt-out';
  }

  #exists(name: DomainName): boolean {
    return (
      name.equals(this.name) || [...this.#rrsets.values()].some(([record]) => record?.name.isWithin(name))
    );
  }

  /** The names with records of their own: authoritative ones and delegations, not what is below those. */
  #owners(): DomainName[] {
    const owners = new Map<string, DomainName>();
    for (const [record] of this.#rrsets.values()) {
      const cut = record && this.cutAbove(record.name);
      if (record !== undefined && (cut === undefined || cut.equals(record.name)))
        owners.set(record.name.key, record.name);
    }
    return [...owners.values()].sort((a, b) => a.compare(b));
  }

  #typesAt(name: DomainName): number[] {
    const isCut = this.find(name, TYPE.NS) !== undefined && !name.equals(this.name);
    const types = [...this.#rrsets.values()].flatMap(([record]) =>
      record?.name.equals(name) ? [record.type] : [],
    );
    if (name.equals(this.name)) types.push(TYPE.DNSKEY);
    const signed = !isCut || types.includes(TYPE.DS);
    if (signed && types.length > 0) types.push(TYPE.RRSIG);
    return this.#hashed ? types : [...types, TYPE.NSEC, TYPE.RRSIG];
  }

  /** The signed denial record whose owner (or whose owner's hash) is the name. */
  #match(name: DomainName): TestRecord[] {
    return (
      this.#chain()
        .find(({ of }) => of.equals(name))
        ?.records() ?? []
    );
  }

  #cover(name: DomainName): TestRecord[] {
    const chain = this.#chain();
    const order = this.#hashed ? this.hash(name).toString('latin1') : name;
    const isAfter = (link: (typeof chain)[number]): boolean =>
      typeof order === 'string' ? link.hash < order : link.of.compare(order) < 0;
    return (chain.findLast((link) => isAfter(link)) ?? chain.at(-1))?.records() ?? [];
  }

  hash(name: DomainName): Buffer {
    const salt = this.#options.salt ?? Buffer.alloc(0);
    let digest = hash('sha1', Buffer.concat([name.wire, salt]), 'buffer');
    for (let left = this.#options.iterations ?? 0; left > 0; left -= 1) {
      digest = hash('sha1', Buffer.concat([digest, salt]), 'buffer');
    }
    return digest;
  }

  #chain(): { of: DomainName; hash: string; records: () => TestRecord[] }[] {
    if (!this.signed) return [];
    let owners = this.#owners();
    if (this.#options.denial === 'opt-out') {
      owners = owners.filter(
        (name) =>
          this.find(name, TYPE.NS) === undefined ||
          this.find(name, TYPE.DS) !== undefined ||
          name.equals(this.name),
      );
    }
    if (this.#hashed) {
      const all = new Map(owners.map((name) => [name.key, name]));
      for (const name of owners)
        for (let up = name.parent(); up.isBelow(this.name); up = up.parent()) all.set(up.key, up);
      owners = [...all.values()];
    }
    const links = owners.map((of) => ({ of, hash: this.hash(of).toString('latin1') }));
    if (this.#hashed) links.sort((a, b) => (a.hash < b.hash ? -1 : 1));
    return links.map((link, index) => {
      const next = links[(index + 1) % links.length] ?? link;
      return { ...link, records: () => this.denialRecord(link.of, next.of) };
    });
  }

  /** One signed NSEC or NSEC3 from a name to the next. */
  denialRecord(of: DomainName, next: DomainName): TestRecord[] {
    const types = bitmapRdata(this.#typesAt(of));
    if (!this.#hashed) {
      const nsec = [{ name: of, type: TYPE.NSEC, ttlSeconds: 300, rdata: Buffer.concat([next.wire, types]) }];
      return [...nsec, ...this.sign(nsec)];
    }
    const { salt = Buffer.alloc(0), iterations = 0, denial } = this.#options;
    const head = numbers([1, 1], [denial === 'opt-out' ? 1 : 0, 1], [iterations, 2], [salt.length, 1]);
    const rdata = Buffer.concat([head, salt, Buffer.from([20]), this.hash(next), types]);
    const owner = DomainName.parse(`${base32hex(this.hash(of))}.${this.name.isRoot ? '' : this.name}`);
    const nsec3 = [{ name: owner, type: TYPE.NSEC3, ttlSeconds: 300, rdata }];
    return [...nsec3, ...this.sign(nsec3)];
  }
}

export function base32hex(octets: Buffer): string {
  let bits = '';
  for (const octet of octets) bits += octet.toString(2).padStart(8, '0');
  return (bits.match(/.{5}/g) ?? []).map((five) => Number.parseInt(five, 2).toString(32)).join('');
}
