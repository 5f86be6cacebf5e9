import { createHash, type Hash } from 'node:crypto';
import { formatPrefix } from './prefix.ts';
import type { EgressRule, IngressRule, Policy } from './types.ts';

/** Says what is hashed and how; another encoding gets another domain. `digest.md` writes it down. */
export const POLICY_DIGEST_DOMAIN = 'postern/policy/1';

/**
 * SHA-256 of what a policy means: equal for two files that differ in layout, comments, key order, format, or the
 * order and spelling of entries of one list; different when any decision, label or order of rules differs.
 */
export function policyDigest(policy: Policy): Buffer {
  const hash = createHash('sha256');
  text(hash, POLICY_DIGEST_DOMAIN);
  list(hash, policy.egress.allow, egressRule);
  list(hash, policy.egress.deny, egressRule);
  list(hash, policy.ingress, ingressRule);
  return hash.digest();
}

function egressRule(hash: Hash, rule: EgressRule): void {
  text(hash, rule.label === rule.path ? '' : rule.label);
  list(hash, rule.fqdn, text);
  list(hash, rule.prefixes.map(formatPrefix), text);
  list(hash, rule.protocols, text);
  list(hash, rule.ports, (into, { from, to }) => {
    count(into, from);
    count(into, to);
  });
  text(hash, rule.dnssec);
  text(hash, rule.tls ?? '');
}

function ingressRule(hash: Hash, rule: IngressRule): void {
  text(hash, rule.label === rule.path ? '' : rule.label);
  text(hash, rule.protocol);
  count(hash, rule.port);
  text(hash, rule.to.address);
  count(hash, rule.to.port);
  text(hash, rule.proxyProtocol ?? '');
  // Without the list everybody may come, with an empty one nobody: two different things.
  count(hash, rule.from === undefined ? 0 : 1);
  list(hash, (rule.from ?? []).map(formatPrefix), text);
}

function list<T>(hash: Hash, entries: readonly T[], write: (hash: Hash, entry: T) => void): void {
  count(hash, entries.length);
  for (const entry of entries) write(hash, entry);
}

function text(hash: Hash, value: string): void {
  const bytes = Buffer.from(value, 'utf8');
  count(hash, bytes.length);
  hash.update(bytes);
}

function count(hash: Hash, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  hash.update(bytes);
}
