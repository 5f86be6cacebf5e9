import { formatAddress, type IpAddress } from './address.ts';
import type { CompiledPolicy } from './compile.ts';
import { canonicalName } from './name.ts';
import { ANY_MODE, MODE_MASK, type Nearness, NO_RULE } from './port-table.ts';
import type { AllowReason, DenyReason } from './reasons.ts';
import { embeddedAddresses, type SpecialKind, specialOf } from './special.ts';
import { readTarget, type Target } from './target.ts';
import type { Destination, DnssecState, EgressRule, LeaseView } from './types.ts';

export interface Allowed {
  readonly verdict: 'allow';
  readonly reason: AllowReason;
  /** The label of the rule. */
  readonly rule: string;
  /** The name's one spelling, where the destination has one or a lease gave it. */
  readonly name?: string;
  /** The address's one spelling, which is what to dial; absent when only a name was asked about. */
  readonly address?: string;
  /** The first bytes must be a TLS ClientHello for one of `serverNames`. */
  readonly tls?: 'sni';
  readonly serverNames?: readonly string[];
}

export interface Denied {
  readonly verdict: 'deny';
  readonly reason: DenyReason;
  /** The label of the rule that refuses, or that would allow but for the reason. */
  readonly rule?: string;
  readonly name?: string;
  readonly address?: string;
  /** With `special-address`: which kind. */
  readonly special?: SpecialKind | 'own';
}

export type Decision = Allowed | Denied;

/**
 * The one decision that every way out of the guest ends in. Pure and total: any destination gets an answer, the same
 * one for the same policy and leases; nothing is allowed but by a rule; deny rules win.
 *
 * A name without an address: may it be resolved and dialled at all. A name with an address (and how its answer
 * validated): may this be dialled. An address alone: by an address rule, else by a live lease of an allowed name.
 */
export function decide(policy: CompiledPolicy, destination: Destination, leases?: LeaseView): Decision {
  const target = readTarget(destination);
  if ('refused' in target) return { verdict: 'deny', reason: target.refused };
  const denied = denyByRule(policy, target);
  if (denied !== undefined) return denied;
  if (target.name !== undefined) return decideName(policy, target, target.name);
  return decideAddress(policy, target, leases);
}

function denyByRule({ deny }: CompiledPolicy, target: Target): Denied | undefined {
  const { name, address, protocol, port } = target;
  let first = NO_RULE;
  if (name !== undefined) first = deny.names.lookup(name, protocol, port, ANY_MODE);
  if (address !== undefined) first = Math.min(first, deny.lookupEmbedded(address, protocol, port));
  return first === NO_RULE ? undefined : refuse(target, 'denied-by-rule', deny.rule(first));
}

function decideName(policy: CompiledPolicy, target: Target, name: string): Decision {
  const { allow } = policy;
  const { protocol, port, address } = target;
  const first = allow.names.lookup(name, protocol, port, acceptableModes(target));
  if (first === NO_RULE) return refuseName(policy, target, name);
  const rule = allow.rule(first);
  if (address !== undefined) {
    const special = specialKind(policy, target, address);
    if (special !== undefined && !isNamed(policy, target, address, special.namedByLength)) {
      return { ...refuse(target, 'special-address', rule), special: special.kind };
    }
  }
  return permit(target, 'rule', rule);
}

function refuseName({ allow }: CompiledPolicy, target: Target, name: string): Denied {
  const { protocol, port, dnssec } = target;
  // With every mode acceptable there is nothing that a second look would find.
  const stricter = acceptableModes(target) !== ANY_MODE;
  const first = stricter ? allow.names.lookup(name, protocol, port, ANY_MODE) : NO_RULE;
  if (first !== NO_RULE) {
    const reason = `dnssec-${dnssec === 'secure' || dnssec === undefined ? 'unknown' : dnssec}` as const;
    return refuse(target, reason, allow.rule(first));
  }
  return refuse(target, MISS_REASONS[allow.names.nearness(name, protocol)]);
}

const MISS_REASONS = {
  none: 'no-rule',
  'other-protocol': 'protocol-not-allowed',
  'other-port': 'port-not-allowed',
} as const satisfies Record<Nearness, DenyReason>;

/**
 * The DNSSEC modes of rules that the answer satisfies. A bogus answer is a forged one and binds under no rule.
 * Nothing known (a plain resolver) is as good as insecure. A name alone was not answered yet: any rule will do.
 */
function acceptableModes({ address, dnssec }: Target): number {
  if (dnssec === undefined) return address === undefined ? ANY_MODE : MODE_MASK.validate | MODE_MASK.off;
  if (dnssec === 'bogus') return 0;
  if (dnssec === 'indeterminate') return MODE_MASK.off;
  return dnssec === 'secure' ? ANY_MODE : MODE_MASK.validate | MODE_MASK.off;
}

function decideAddress(policy: CompiledPolicy, target: Target, leases: LeaseView | undefined): Decision {
  const { address, addressText = '', protocol, port } = target;
  if (address === undefined) return refuse(target, 'invalid-destination');
  const { allow } = policy;
  const index = allow.addresses(address);
  const special = specialKind(policy, target, address);
  const wide = index.lookup(address, protocol, port, ANY_MODE);
  const first =
    special === undefined ? wide : index.lookup(address, protocol, port, ANY_MODE, special.namedByLength);
  if (first !== NO_RULE) return permit(target, 'rule', allow.rule(first));
  const leased = decideLeases(policy, target, leases?.namesOf(addressText) ?? []);
  if (leased !== undefined) return leased;
  if (wide !== NO_RULE) {
    return { ...refuse(target, 'special-address', allow.rule(wide)), special: special?.kind ?? 'own' };
  }
  const miss = MISS_REASONS[index.nearness(address, protocol)];
  return refuse(target, miss === 'no-rule' && leases !== undefined ? 'no-lease' : miss);
}

/**
 * By the names that lead to the address now. One allowed name suffices. When every name that allows it asks for its
 * own SNI, any of them will do: two names on one address cannot be told apart before the ClientHello.
 */
function decideLeases(
  policy: CompiledPolicy,
  target: Target,
  leases: ReturnType<LeaseView['namesOf']>,
): Decision | undefined {
  let chosen: Allowed | undefined;
  let refused: Denied | undefined;
  const serverNames: string[] = [];
  for (const lease of leases) {
    const decision = decideLease(policy, target, lease.name, lease.dnssec);
    if (decision.verdict === 'deny') {
      if (decision.reason !== 'no-rule') refused ??= decision;
      continue;
    }
    if (decision.tls === undefined) return { ...decision, reason: 'lease' };
    chosen ??= { ...decision, reason: 'lease' };
    serverNames.push(...(decision.serverNames ?? []));
  }
  return chosen === undefined ? refused : { ...chosen, serverNames };
}

function decideLease(
  policy: CompiledPolicy,
  { protocol, port, address, addressText }: Target,
  leased: string,
  dnssec: DnssecState | undefined,
): Decision {
  const name = canonicalName(leased);
  if (name === undefined || address === undefined || addressText === undefined) {
    return { verdict: 'deny', reason: 'invalid-name' };
  }
  const state = dnssec === undefined ? {} : { dnssec };
  const target: Target = { protocol, port, address, addressText, name, ...state };
  return denyByRule(policy, target) ?? decideName(policy, target, name);
}

function specialKind(
  policy: CompiledPolicy,
  target: Target,
  address: IpAddress,
): { readonly kind: SpecialKind | 'own'; readonly namedByLength: number } | undefined {
  const own = policy.ownAddresses();
  if (own.size > 0 && isOwn(own, target.addressText ?? '', address)) {
    return { kind: 'own', namedByLength: address.family === 4 ? 32 : 128 };
  }
  return specialOf(address);
}

function isOwn(own: ReadonlySet<string>, text: string, address: IpAddress): boolean {
  if (own.has(text)) return true;
  return embeddedAddresses(address).some((inner) => own.has(formatAddress(inner.address)));
}

function isNamed(policy: CompiledPolicy, target: Target, address: IpAddress, minLength: number): boolean {
  const { allow } = policy;
  const { protocol, port } = target;
  return allow.addresses(address).lookup(address, protocol, port, ANY_MODE, minLength) !== NO_RULE;
}

function permit(target: Target, reason: AllowReason, rule: EgressRule | undefined): Decision {
  if (rule === undefined) return refuse(target, 'no-rule');
  const { name, addressText } = target;
  const sni = rule.tls !== undefined && name !== undefined;
  return {
    verdict: 'allow',
    reason,
    rule: rule.label,
    ...(name === undefined ? {} : { name }),
    ...(addressText === undefined ? {} : { address: addressText }),
    ...(sni ? { tls: 'sni', serverNames: [name] } : {}),
  };
}

function refuse(target: Target, reason: DenyReason, rule?: EgressRule): Denied {
  const { name, addressText } = target;
  return {
    verdict: 'deny',
    reason,
    ...(rule === undefined ? {} : { rule: rule.label }),
    ...(name === undefined ? {} : { name }),
    ...(addressText === undefined ? {} : { address: addressText }),
  };
}
