import type { ErrorCode } from '../../shared/errors.ts';
import type { DnssecState } from '../../shared/policy/types.ts';

export interface ResolvedAddress {
  /** Canonical text, as ipaddr.js prints it. */
  readonly address: string;
  readonly ttlSeconds: number;
}

export interface Resolution {
  /** At least one, of both families, in the order of the answers; none where the answer is bogus. */
  readonly addresses: readonly ResolvedAddress[];
  readonly dnssec: DnssecState;
  /** The names of the CNAME chain, from the name asked for to the owner of the addresses. */
  readonly chain: readonly string[];
  /** Why it is not secure, for a person; empty when it is. */
  readonly reason: string;
  /** What failed, where it is bogus. */
  readonly code?: ErrorCode;
}

export interface ResolveOptions {
  readonly signal?: AbortSignal;
}

/** Finds the addresses of a name that the policy allows; it is never asked for any other. */
export interface NameResolver {
  /**
   * `name` is normalised: lower case, A-labels, no trailing dot. No search list is applied to it.
   * @throws PosternError ERR_RESOLVE_NOT_FOUND (the name has no address), ERR_RESOLVE_FAILED (no answer to be had),
   * ERR_TRANSPORT_ABORTED on `signal`.
   */
  resolve(name: string, options: ResolveOptions): Promise<Resolution>;
}
