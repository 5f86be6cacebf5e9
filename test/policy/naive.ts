import ipaddr from 'ipaddr.js';
import { parseAddress } from '../../shared/policy/address.ts';
import { formatPrefix } from '../../shared/policy/prefix.ts';
import { specialOf } from '../../shared/policy/special.ts';
import type { DnssecState, Egress, EgressRule, Lease, Protocol } from '../../shared/policy/types.ts';

/** What both the index and this twin must agree on. */
export interface Verdict {
  readonly verdict: 'allow' | 'deny';
  readonly reason: string;
  readonly rule?: string;
  readonly name?: string;
  readonly serverNames?: readonly string[];
}

/** A destination whose name is canonical already (or absent). */
export interface PlainDestination {
  readonly protocol: Protocol;
  readonly port: number;
  readonly name?: string;
  readonly address?: string;
  readonly dnssec?: DnssecState;
}

/**
 * The decision read straight off the rules, one after the other, with another library's arithmetic for addresses: slow, and
 * simple enough to be believed.
 */
export function decideNaively(egress: Egress, to: PlainDestination, leases?: readonly Lease[]): Verdict {
  const address = to.address === undefined ? undefined : read(to.address);
  const denied = egress.deny.find((rule) => serves(rule, to) && denies(rule, to.name, address));
  if (denied !== undefined) return deny('denied-by-rule', denied);
  if (to.name !== undefined) return decideName(egress, to, to.name, address);
  if (address === undefined) return deny('invalid-destination');
  const covering = egress.allow.filter((rule) => serves(rule, to) && holds(rule, address));
  const naming = covering.find((rule) => namesSpecial(rule, address));
  if (naming !== undefined) return { verdict: 'allow', reason: 'rule', rule: naming.label };
  const leased = byLeases(egress, to, leases ?? []);
  if (leased !== undefined) return leased;
  if (covering[0] !== undefined) return deny('special-address', covering[0]);
  const holding = egress.allow.filter((rule) => holds(rule, address));
  if (holding.length === 0) return deny(leases === undefined ? 'no-rule' : 'no-lease');
  return deny(near(holding, to));
}

function byLeases(egress: Egress, to: PlainDestination, leases: readonly Lease[]): Verdict | undefined {
  const verdicts = leases.map((lease) => {
    const { protocol, port, address } = to;
    const known = { ...(address === undefined ? {} : { address }), ...lease };
    return decideNaively(egress, { protocol, port, ...known });
  });
  const allowed = verdicts.filter(({ verdict }) => verdict === 'allow');
  const free = allowed.find(({ serverNames }) => serverNames === undefined);
  if (free !== undefined) return { ...free, reason: 'lease' };
  if (allowed[0] === undefined) return verdicts.find(({ reason }) => reason !== 'no-rule');
  return {
    ...allowed[0],
    reason: 'lease',
    serverNames: allowed.flatMap(({ serverNames }) => serverNames ?? []),
  };
}

function decideName(
  egress: Egress,
  to: PlainDestination,
  name: string,
  address: Address | undefined,
): Verdict {
  const matching = egress.allow.filter((rule) => matches(rule, name));
  const serving = matching.filter((rule) => serves(rule, to));
  const rule = serving.find(({ dnssec }) => accepts(dnssec, to));
  if (rule === undefined) {
    if (matching.length === 0) return deny('no-rule');
    if (serving[0] === undefined) return deny(near(matching, to));
    return deny(`dnssec-${to.dnssec ?? 'unknown'}`, serving[0]);
  }
  if (address !== undefined && isSpecial(address)) {
    const named = egress.allow.some(
      (other) => serves(other, to) && holds(other, address) && namesSpecial(other, address),
    );
    if (!named) return deny('special-address', rule);
  }
  const serverNames = rule.tls === undefined ? {} : { serverNames: [name] };
  return { verdict: 'allow', reason: 'rule', rule: rule.label, name, ...serverNames };
}

type Address = ReturnType<typeof ipaddr.process>;

/** ipaddr.js takes `::10.1.2.3` for `::ffff:10.1.2.3`; in hexadecimal, which the URL parser writes, it does not. */
function read(text: string): Address {
  if (!text.includes(':')) return ipaddr.parse(text);
  return ipaddr.process(new URL(`http://[${text}]`).hostname.slice(1, -1));
}

function deny(reason: string, rule?: EgressRule): Verdict {
  return { verdict: 'deny', reason, ...(rule === undefined ? {} : { rule: rule.label }) };
}

function near(rules: readonly EgressRule[], { protocol }: PlainDestination): string {
  return rules.some((rule) => rule.protocols.includes(protocol))
    ? 'port-not-allowed'
    : 'protocol-not-allowed';
}

function serves(rule: EgressRule, { protocol, port }: PlainDestination): boolean {
  if (!rule.protocols.includes(protocol)) return false;
  return protocol === 'icmp' || rule.ports.some(({ from, to }) => from <= port && port <= to);
}

function matches(rule: EgressRule, name: string): boolean {
  return rule.fqdn.some((pattern) => {
    const source = pattern
      .replaceAll('.', '\\.')
      .replace(/^\*\*/, '[^.]+(\\.[^.]+)@')
      .replace(/^\*/, '[^.]+')
      .replace('@', '*');
    return new RegExp(`^${source}$`).test(name);
  });
}

function accepts(mode: string, { dnssec, address }: PlainDestination): boolean {
  if (dnssec === 'bogus') return false;
  if (dnssec === undefined && address === undefined) return true;
  if (mode === 'off') return true;
  if (mode === 'validate') return dnssec !== 'indeterminate';
  return dnssec === 'secure';
}

function holds(rule: EgressRule, address: Address): boolean {
  return rule.prefixes.some((prefix) => {
    const [network, length] = ipaddr.parseCIDR(formatPrefix(prefix));
    return network.kind() === address.kind() && address.match(network, length);
  });
}

function denies(rule: EgressRule, name: string | undefined, address: Address | undefined): boolean {
  if (name !== undefined && matches(rule, name)) return true;
  return address !== undefined && [address, ...embedded(address)].some((form) => holds(rule, form));
}

function isSpecial(address: Address): boolean {
  return specialOf(parsed(address)) !== undefined;
}

function namesSpecial(rule: EgressRule, address: Address): boolean {
  const special = specialOf(parsed(address));
  if (special === undefined) return true;
  return rule.prefixes.some((prefix) => {
    const [network, length] = ipaddr.parseCIDR(formatPrefix(prefix));
    return (
      network.kind() === address.kind() && address.match(network, length) && length >= special.namedByLength
    );
  });
}

function parsed(address: Address) {
  const read = parseAddress(address.toString());
  if (read === undefined) throw new RangeError(address.toString());
  return read;
}

/** The IPv4 addresses inside an IPv6 one, from its bytes. */
function embedded(address: Address): Address[] {
  const bytes = address.toByteArray();
  if (bytes.length === 4) return [];
  const hex = Buffer.from(bytes).toString('hex');
  const at = (start: number): Address => ipaddr.fromByteArray(bytes.slice(start, start + 4));
  const found: Address[] = [];
  if (/^(0{24}|0{16}ffff0000|0064ff9b0{16})/.test(hex) && !/^0{31}[01]$/.test(hex)) found.push(at(12));
  if (hex.startsWith('0064ff9b0001')) {
    found.push(at(12));
    const rest = bytes.slice(6).filter((_, index) => index !== 2);
    const cuts = [0, 1, 2].map((cut) => ipaddr.fromByteArray(rest.slice(cut, cut + 4)));
    if (bytes[8] === 0) found.push(...cuts.filter((cut) => cut.toByteArray()[0] !== 0));
  }
  if (hex.startsWith('2002')) found.push(at(2));
  if (hex.startsWith('20010000'))
    found.push(at(4), ipaddr.fromByteArray(bytes.slice(12).map((byte) => byte ^ 255)));
  if (/^.{16}0[02]005efe/.test(hex)) found.push(at(12));
  return found;
}
