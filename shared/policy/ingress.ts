import { canonicalAddress, parseAddress } from './address.ts';
import type { CompiledPolicy } from './compile.ts';
import { prefixContains } from './prefix.ts';
import type { IngressReason } from './reasons.ts';
import type { IngressRule } from './types.ts';

export type IngressDecision =
  | { readonly verdict: 'allow'; readonly rule: IngressRule }
  | { readonly verdict: 'deny'; readonly reason: IngressReason; readonly rule?: IngressRule };

/**
 * May a client come in on a service port, and to where. Pure and total.
 * @param client address text as the parent names it
 */
export function decideIngress(
  policy: CompiledPolicy,
  arrival: { readonly protocol: 'tcp' | 'udp'; readonly port: number; readonly client: string },
): IngressDecision {
  const { protocol, port, client } = arrival;
  const rule = policy.ingress.find((entry) => entry.port === port && entry.protocol === protocol);
  if (rule === undefined) return { verdict: 'deny', reason: 'no-ingress' };
  if (rule.from === undefined) return { verdict: 'allow', rule };
  const parsed = parseAddress(client);
  const address = parsed === undefined ? undefined : canonicalAddress(parsed);
  const listed = address !== undefined && rule.from.some((prefix) => prefixContains(prefix, address));
  return listed ? { verdict: 'allow', rule } : { verdict: 'deny', reason: 'source-not-allowed', rule };
}
