import { canonicalAddress, parseAddress } from './address.ts';
import type { CompiledPolicy } from './compile.ts';
import { type Decision, type Denied, decide } from './decide.ts';
import { describeRule } from './describe.ts';
import { canonicalName, patternMatches } from './name.ts';
import { prefixContains } from './prefix.ts';
import { ALLOW_REASONS, DENY_REASONS } from './reasons.ts';
import type { Destination, EgressRule } from './types.ts';

/** A destination with all the addresses that its name resolved to. */
export interface Question extends Omit<Destination, 'address'> {
  readonly addresses: readonly string[];
}

export interface Explanation {
  readonly question: Question;
  /**
   * The verdict over all: with several addresses, `allow` when at least one is allowed, for only those that are
   * would be dialled.
   */
  readonly decision: Decision;
  /** One decision an address, in the order given; empty when none was given. */
  readonly addresses: readonly { readonly address: string; readonly decision: Decision }[];
}

export function explain(policy: CompiledPolicy, question: Question): Explanation {
  const { addresses: given, ...destination } = question;
  const addresses = given.map((address) => ({
    address,
    decision: decide(policy, { ...destination, address }),
  }));
  const allowed = addresses.find(({ decision }) => decision.verdict === 'allow');
  const decision = (allowed ?? addresses[0])?.decision ?? decide(policy, destination);
  return { question, decision, addresses };
}

/** The machine's form; `verdict`, `rule` and `reason` are always there. */
export function explanationJson({ decision, addresses }: Explanation): Record<string, unknown> {
  const json = decisionJson(decision);
  if (addresses.length === 0) return json;
  return {
    ...json,
    addresses: addresses.map(({ address, decision }) => ({ address, ...decisionJson(decision) })),
  };
}

function decisionJson({ verdict, rule, reason, ...rest }: Decision): Record<string, unknown> {
  return { verdict, rule: rule ?? null, reason, ...rest };
}

/** The person's form: which rule, why, and what would change it. */
export function explanationText(policy: CompiledPolicy, explanation: Explanation): string {
  const { question, decision, addresses } = explanation;
  const lines = [`${decision.verdict}: ${describeQuestion(question)}`, ...because(policy, decision)];
  if (addresses.length > 1) {
    for (const { address, decision: one } of addresses) {
      const dropped = one.verdict === 'deny' ? `dropped (${one.reason})` : `may be dialled (${one.rule})`;
      lines.push(`  address ${address}: ${dropped}`);
    }
  }
  if (decision.verdict === 'deny') lines.push(...advice(policy, question, decision));
  else if (addresses.length === 0 && question.name !== undefined) {
    lines.push('  the name may be resolved; what it resolves to is judged then (--address, --dnssec)');
  }
  return `${lines.join('\n')}\n`;
}

function describeQuestion({ protocol, port, name, addresses }: Question): string {
  const host = name ?? bracketed(addresses[0] ?? '');
  const at = name !== undefined && addresses.length > 0 ? ` at ${addresses.join(', ')}` : '';
  return `${protocol} to ${host}${protocol === 'icmp' ? '' : `:${port}`}${at}`;
}

function bracketed(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}

function because(policy: CompiledPolicy, decision: Decision): string[] {
  const lines: string[] = [];
  const { allow, deny } = policy.egress;
  const rule = [...allow, ...deny].find(({ label }) => label === decision.rule);
  if (rule !== undefined) lines.push(`  rule ${describeLabel(rule)}: ${describeRule(rule)}`);
  if (decision.verdict === 'allow') {
    lines.push(`  ${decision.reason}: ${ALLOW_REASONS[decision.reason]}`);
    if (decision.tls !== undefined) {
      lines.push(
        `  the first bytes must be a TLS ClientHello for ${(decision.serverNames ?? []).join(' or ')}`,
      );
    }
    return lines;
  }
  const kind = decision.special === undefined ? '' : ` (here: ${decision.special})`;
  return [...lines, `  ${decision.reason}: ${DENY_REASONS[decision.reason]}${kind}`];
}

function describeLabel({ label, path }: EgressRule): string {
  return label === path ? label : `${label} (${path})`;
}

/** What would make the verdict another one. */
function advice(policy: CompiledPolicy, question: Question, decision: Denied): string[] {
  const address = question.addresses[0];
  switch (decision.reason) {
    case 'no-rule':
    case 'no-lease':
      return [
        ...addressRuleOnly(policy, question),
        `  to allow it, add to egress.allow: ${ruleFor(question)}`,
      ];
    case 'port-not-allowed':
    case 'protocol-not-allowed':
      return namingRules(policy, question).map(
        (rule) => `  rule ${describeLabel(rule)} allows ${describeRule(rule)}`,
      );
    case 'denied-by-rule':
      return [`  to allow it, remove or narrow ${decision.rule}`];
    case 'special-address':
      return [
        `  to allow it, name the address in egress.allow: ${ruleFor({ ...question, name: undefined })}`,
      ];
    case 'dnssec-insecure':
    case 'dnssec-unknown':
      return [`  to allow it, sign the zone, or set dnssec: validate in ${decision.rule}`];
    case 'dnssec-indeterminate':
      return [`  find out why validation did not come to an end, or set dnssec: off in ${decision.rule}`];
    case 'dnssec-bogus':
      return ['  no setting allows a forged answer; the zone or the way to it is broken'];
    case 'numeric-spelling':
      return [
        '  write the address as a dotted quad, or the name that is meant',
        `  given: ${question.name ?? address}`,
      ];
    default:
      return [];
  }
}

/** A name is not resolved for the sake of an address rule: queries for names off the list would leak by DNS. */
function addressRuleOnly(policy: CompiledPolicy, { name, ...rest }: Question): string[] {
  if (name === undefined) return [];
  return rest.addresses.flatMap((address) => {
    const alone = decide(policy, { ...rest, address });
    if (alone.verdict === 'deny') return [];
    return [`  ${alone.rule} allows ${address} itself, but a name is resolved only if an fqdn rule names it`];
  });
}

function ruleFor({
  protocol,
  port,
  name,
  addresses,
}: Omit<Question, 'name'> & { name?: string | undefined }): string {
  const host = name === undefined ? `ip: "${addresses[0] ?? ''}"` : `fqdn: ${canonicalName(name) ?? name}`;
  return `{ ${host}, ${protocol === 'icmp' ? '' : `ports: ${port}, `}protocol: ${protocol} }`;
}

/** Rules that a person could have meant, at most: more would bury the answer. */
const NAMING_RULES_SHOWN = 5;

function namingRules(policy: CompiledPolicy, { name, addresses }: Question): EgressRule[] {
  const canonical = name === undefined ? undefined : canonicalName(name);
  const parsed = parseAddress(addresses[0] ?? '');
  const address = parsed === undefined ? undefined : canonicalAddress(parsed);
  const naming = policy.egress.allow.filter((rule) =>
    canonical !== undefined
      ? rule.fqdn.some((pattern) => patternMatches(pattern, canonical))
      : address !== undefined && rule.prefixes.some((prefix) => prefixContains(prefix, address)),
  );
  return naming.slice(0, NAMING_RULES_SHOWN);
}
