import { formatPorts } from './ports.ts';
import { formatPrefix } from './prefix.ts';
import type { EgressRule, IngressRule, Policy } from './types.ts';

/** Names or blocks of one rule that a summary shows before it only counts. */
const PLACES_SHOWN = 6;
/** Rules of one kind that a summary shows: a screenful. */
const RULES_SHOWN = 100;

/** `api.example.com, tcp 443, dnssec require`: one rule in a line. */
export function describeRule(rule: EgressRule): string {
  const places = [...rule.fqdn, ...rule.prefixes.map(formatPrefix)];
  const shown = places.slice(0, PLACES_SHOWN).join(', ');
  const more = places.length > PLACES_SHOWN ? ` and ${places.length - PLACES_SHOWN} more` : '';
  const parts = [`${shown}${more}`, describeService(rule)];
  if (rule.dnssec !== 'validate') parts.push(`dnssec ${rule.dnssec}`);
  if (rule.tls !== undefined) parts.push('TLS with that name as SNI');
  return parts.join('; ');
}

function describeService({ protocols, ports }: EgressRule): string {
  const withPorts = protocols.filter((protocol) => protocol !== 'icmp');
  const parts: string[] = [];
  if (withPorts.length > 0) {
    const all = ports[0]?.from === 1 && ports[0].to === 65_535;
    parts.push(`${withPorts.join(' and ')} ${all ? 'on every port' : formatPorts(ports)}`);
  }
  if (protocols.includes('icmp')) parts.push('icmp');
  return parts.join(', ');
}

export function describeIngress(rule: IngressRule): string {
  const host = rule.to.address.includes(':') ? `[${rule.to.address}]` : rule.to.address;
  const parts = [`${rule.protocol} ${rule.port} to ${host}:${rule.to.port}`];
  if (rule.proxyProtocol !== undefined) parts.push(`PROXY protocol ${rule.proxyProtocol}`);
  parts.push(rule.from === undefined ? 'from anywhere' : `from ${rule.from.map(formatPrefix).join(', ')}`);
  return parts.join('; ');
}

/** What a policy allows, for a person: one line a rule. */
export function describePolicy(policy: Policy): string[] {
  const lines = [
    ...policy.egress.deny
      .slice(0, RULES_SHOWN)
      .map((rule) => `  deny   ${labelled(rule)}${describeRule(rule)}`),
    ...policy.egress.allow
      .slice(0, RULES_SHOWN)
      .map((rule) => `  allow  ${labelled(rule)}${describeRule(rule)}`),
    ...policy.ingress
      .slice(0, RULES_SHOWN)
      .map((rule) => `  in     ${labelled(rule)}${describeIngress(rule)}`),
  ];
  const { allow, deny } = policy.egress;
  const hidden = allow.length + deny.length + policy.ingress.length - lines.length;
  if (hidden > 0) lines.push(`  and ${hidden} more`);
  if (allow.length === 0) lines.push('  nothing may go out');
  if (policy.ingress.length === 0) lines.push('  nothing may come in');
  return lines;
}

function labelled({ label, path }: { readonly label: string; readonly path: string }): string {
  return label === path ? '' : `${label}: `;
}
