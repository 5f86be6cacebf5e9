import type { ClientHelloProgress } from '../tls/client-hello.ts';
import type { SniReason } from './reasons.ts';

export type SniDecision =
  | { readonly verdict: 'more' }
  | { readonly verdict: 'allow'; readonly serverName: string }
  | { readonly verdict: 'deny'; readonly reason: SniReason };

/**
 * The second half of a decision with `tls: 'sni'`: may the flow go on after these first bytes. Pure and total.
 * @param serverNames of the decision
 */
export function decideServerName(serverNames: readonly string[], progress: ClientHelloProgress): SniDecision {
  if (progress.state === 'more') return { verdict: 'more' };
  if (progress.state === 'refused') {
    return { verdict: 'deny', reason: progress.reason === 'not-tls' ? 'sni-not-tls' : 'sni-malformed' };
  }
  const { serverName, encrypted } = progress.hello;
  if (serverName === undefined) return { verdict: 'deny', reason: 'sni-missing' };
  if (!serverNames.includes(serverName)) return { verdict: 'deny', reason: 'sni-other-name' };
  // The name outside is the server's public one; which site is meant only the server can read.
  if (encrypted) return { verdict: 'deny', reason: 'sni-encrypted' };
  return { verdict: 'allow', serverName };
}
