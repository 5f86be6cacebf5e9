import type { Problem } from '../errors.ts';
import { formatPorts } from './ports.ts';
import { formatPrefix, maskAddress, type Prefix } from './prefix.ts';
import type { Egress, EgressRule, IngressRule, Policy } from './types.ts';

/** What the entries of a policy must be to each other; every problem names both entries. */
export function policyConflicts({ egress, ingress }: Policy): Problem[] {
  return [
    ...repeatedNames([...egress.allow, ...egress.deny, ...ingress]),
    ...ruleConflicts(egress),
    ...repeatedServicePorts(ingress),
  ];
}

/** The same for the operator's guard. */
export function egressConflicts(egress: Egress): Problem[] {
  return [...repeatedNames([...egress.allow, ...egress.deny]), ...ruleConflicts(egress)];
}

function ruleConflicts({ allow, deny }: Egress): Problem[] {
  return [...repeatedRules(allow), ...repeatedRules(deny), ...shadowedRules(allow, deny)];
}

function repeatedNames(rules: readonly { readonly label: string; readonly path: string }[]): Problem[] {
  return repeated(
    rules,
    (rule) => rule.label,
    (rule, first) => ({
      path: `${rule.path}.name`,
      found: JSON.stringify(rule.label),
      expected: `a name of its own: ${first.path} has this one`,
    }),
  );
}

function repeatedServicePorts(rules: readonly IngressRule[]): Problem[] {
  return repeated(
    rules,
    (rule) => `${rule.protocol} ${rule.port}`,
    (rule, first) => ({
      path: `${rule.path}.port`,
      found: `${rule.port} (${rule.protocol})`,
      expected: `a service port of its own: ${first.path} has this one`,
    }),
  );
}

function repeatedRules(rules: readonly EgressRule[]): Problem[] {
  return repeated(rules, meaningOf, (rule, first) => ({
    path: rule.path,
    found: `the same rule as ${first.path}`,
    expected: `each rule once: remove ${rule.path} or ${first.path}`,
  }));
}

function repeated<T>(
  rules: readonly T[],
  keyOf: (rule: T) => string,
  problem: (rule: T, first: T) => Problem,
): Problem[] {
  const first = new Map<string, T>();
  return rules.flatMap((rule) => {
    const earlier = first.get(keyOf(rule));
    if (earlier !== undefined) return [problem(rule, earlier)];
    first.set(keyOf(rule), rule);
    return [];
  });
}

/** Everything that a rule says but its label; rules are in their one spelling already. */
function meaningOf({ fqdn, prefixes, protocols, ports, dnssec, tls }: EgressRule): string {
  const places = [...fqdn, ...prefixes.map(formatPrefix)].join(' ');
  return [places, protocols.join(' '), formatPorts(ports), dnssec, tls ?? ''].join('|');
}

/**
 * Deny rules that one pattern is compared with, at most: it is a help for people, who write few, and must not turn
 * a file of 10,000 rules about one name into 100 million comparisons.
 */
const COVERS_MAX = 64;

/** Allow rules of which deny rules leave nothing: whoever wrote one of the two meant something else. */
function shadowedRules(allow: readonly EgressRule[], deny: readonly EgressRule[]): Problem[] {
  const denied = new Map<string, EgressRule[]>();
  const lengths = new Set<number>();
  for (const rule of deny) {
    for (const { length } of rule.prefixes) lengths.add(length);
    for (const key of [...rule.fqdn, ...rule.prefixes.map(formatPrefix)]) {
      const list = denied.get(key) ?? [];
      if (list.length < COVERS_MAX) list.push(rule);
      denied.set(key, list);
    }
  }
  return allow.flatMap((rule) => {
    const places = [
      ...rule.fqdn.map(coveringPatterns),
      ...rule.prefixes.map((prefix) => coveringPrefixes(prefix, lengths)),
    ];
    const covers = places.map((keys) =>
      keys.flatMap((key) => denied.get(key) ?? []).find((by) => refusesAll(by, rule)),
    );
    const first = covers[0];
    if (first === undefined || covers.includes(undefined)) return [];
    const paths = [...new Set(covers.map((by) => by?.path))].join(' and ');
    const found = `a rule that allows nothing, for ${paths} refuses all of it`;
    return [{ path: rule.path, found, expected: `something left to allow: change ${rule.path} or ${paths}` }];
  });
}

function refusesAll(deny: EgressRule, allow: EgressRule): boolean {
  return (
    allow.protocols.every((protocol) => deny.protocols.includes(protocol)) &&
    allow.ports.every(({ from, to }) => deny.ports.some((range) => range.from <= from && to <= range.to))
  );
}

/** The patterns of which one alone matches everything that this pattern matches. */
function coveringPatterns(pattern: string): string[] {
  const labels = pattern.split('.');
  const star = labels[0] === '*' || labels[0] === '**' ? labels.shift() : undefined;
  const name = labels.join('.');
  const outer = labels.slice(1).map((_, index) => `**.${labels.slice(index + 1).join('.')}`);
  if (star === '**') return [pattern, ...outer];
  if (star === '*') return [pattern, `**.${name}`, ...outer];
  return [pattern, `*.${labels.slice(1).join('.')}`, ...outer];
}

function coveringPrefixes(prefix: Prefix, lengths: ReadonlySet<number>): string[] {
  return [...lengths]
    .filter((length) => length <= prefix.length)
    .map((length) => formatPrefix({ network: maskAddress(prefix.network, length), length }));
}
