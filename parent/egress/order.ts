/** One address of an OPEN; `index` is its place there, which the reply names. */
export interface Candidate {
  readonly address: string;
  readonly index: number;
}

/**
 * Alternates the families, beginning with that of the first address, and keeps the guest's order within each
 * (RFC 8305 section 4, with a First Address Family Count of 1).
 */
export function interleave(candidates: readonly Candidate[]): readonly Candidate[] {
  if (candidates.length < 2) return candidates;
  const isFirstFamily = ({ address }: Candidate) => isIPv6(address) === isIPv6(candidates[0]?.address ?? '');
  const queues = [candidates.filter(isFirstFamily), candidates.filter((one) => !isFirstFamily(one))];
  const ordered: Candidate[] = [];
  for (let row = 0; ordered.length < candidates.length; row += 1) {
    for (const queue of queues) {
      const next = queue[row];
      if (next !== undefined) ordered.push(next);
    }
  }
  return ordered;
}

function isIPv6(address: string): boolean {
  return address.includes(':');
}
