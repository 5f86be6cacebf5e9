import type { Problem } from '../errors.ts';
import type { Egress, Policy } from './types.ts';

/** What entries must be to each other. */
export function policyConflicts(policy: Policy): Problem[] {
  return egressConflicts(policy.egress);
}

export function egressConflicts(_egress: Egress): Problem[] {
  return [];
}
