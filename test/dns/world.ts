import { TrustAnchors } from '../../guest/dns/anchors.ts';
import { parseDs } from '../../guest/dns/ds.ts';
import { DNS_LIMITS, type DnsLimits, Work } from '../../guest/dns/limits.ts';
import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import type { Upstream } from '../../guest/dns/upstream/upstream.ts';
import { Validator } from '../../guest/dns/validator.ts';
import type { Verdict } from '../../guest/dns/verdict.ts';
import { emptyMessage, encodeMessage, nameRdata, type TestMessage, type TestRecord } from './encode.ts';
import { dsRdata, NOW } from './signer.ts';
import type { TestZone } from './zone.ts';

/** What a test does to an answer before it leaves: change it, or give the octets to send instead. */
export type Tamper = (message: TestMessage, name: DomainName, type: number) => unknown;

/** A recursive resolver over some zones, in memory: the untrusted party between them and the validator. */
export class TestWorld implements Upstream {
  readonly name = 'test resolver';
  readonly asked: string[] = [];
  tamper: Tamper = () => {};
  readonly #zones: TestZone[];

  /** The first zone is the anchor's; each other is delegated from the deepest zone above it, with a DS if it is signed. */
  constructor(...zones: TestZone[]) {
    this.#zones = zones;
    for (const zone of zones.slice(1)) this.delegate(zone);
  }

  delegate(zone: TestZone): void {
    const parent = this.#deepest(zone.name.parent());
    const text = zone.name.toString();
    if (parent.find(zone.name, TYPE.NS) === undefined) parent.add(text, TYPE.NS, nameRdata('ns.test.'));
    parent.remove(text, TYPE.DS);
    for (const key of zone.keys) parent.add(text, TYPE.DS, dsRdata(zone.name, key));
  }

  async exchange(query: Buffer): Promise<Buffer> {
    const { name, type } = readQuestion(query);
    this.asked.push(`${name} ${type}`);
    const message = this.#recurse(name, type);
    const octets = this.tamper(message, name, type);
    return octets instanceof Buffer ? octets : encodeMessage(message, query);
  }

  #recurse(name: DomainName, type: number): TestMessage {
    const whole = emptyMessage();
    let current: DomainName | undefined = name;
    for (let hops = 0; current !== undefined && hops < 20; hops += 1) {
      const zone = this.#authority(current, type);
      const part = zone.answer(current, type);
      whole.rcode = part.rcode;
      whole.answer.push(...part.answer);
      whole.authority.push(...part.authority);
      const at: DomainName = current;
      const alias: TestRecord | undefined = part.answer.find(
        (record) => record.type === TYPE.CNAME && record.name.equals(at),
      );
      current =
        type === TYPE.CNAME || alias === undefined
          ? undefined
          : DomainName.fromKey(alias.rdata.toString('latin1'));
    }
    return whole;
  }

  /** A DS is the parent's, everything else at a cut the child's. */
  #authority(name: DomainName, type: number): TestZone {
    return this.#deepest(type === TYPE.DS ? name.parent() : name);
  }

  #deepest(name: DomainName): TestZone {
    const above = this.#zones.filter((zone) => name.isWithin(zone.name));
    const zone = above.sort((a, b) => b.name.labelCount - a.name.labelCount)[0];
    if (zone === undefined) throw new Error(`no zone for ${name}`);
    return zone;
  }

  /** The zone that is anchored. */
  get top(): TestZone {
    const [top] = this.#zones;
    if (top === undefined) throw new Error('a world has a zone');
    return top;
  }

  zone(name: string): TestZone {
    return this.#deepest(DomainName.parse(name));
  }

  /** Anchors of the first zone's keys. */
  anchors(): TrustAnchors {
    const { top } = this;
    const ds = top.keys.map((key) => parseDs(dsRdata(top.name, key))).filter((one) => one !== undefined);
    return new TrustAnchors([{ name: top.name, ds, keys: [], negative: false }]);
  }

  validator(
    options: { clock?: () => number; limits?: Partial<DnsLimits>; anchors?: TrustAnchors } = {},
  ): Validator {
    return new Validator({
      resolvers: [{ name: this.name, ways: [this] }],
      anchors: options.anchors ?? this.anchors(),
      clock: options.clock ?? (() => NOW),
      ...(options.limits === undefined ? {} : { limits: options.limits }),
    });
  }

  /** One question to a validator that knows nothing yet. */
  ask(name: string, type: number, options: Parameters<TestWorld['validator']>[0] = {}): Promise<Verdict> {
    return this.validator(options).resolve(DomainName.parse(name), type);
  }

  /** `state rcode RRsets`, what most tests look at. */
  async summary(
    name: string,
    type: number,
    options: Parameters<TestWorld['validator']>[0] = {},
  ): Promise<string> {
    const verdict = await this.ask(name, type, options);
    return `${verdict.state} ${verdict.rcode} ${verdict.answers.length}`;
  }

  /** The same, with the account of what it cost. */
  async account(name: string, type: number): Promise<{ verdict: Verdict; work: Work }> {
    const work = new Work(DNS_LIMITS);
    const verdict = await this.validator().resolve(DomainName.parse(name), type, work);
    return { verdict, work };
  }
}

function readQuestion(query: Buffer): { name: DomainName; type: number } {
  const end = query.length - 15;
  return { name: DomainName.fromKey(query.toString('latin1', 12, end)), type: query.readUInt16BE(end) };
}
