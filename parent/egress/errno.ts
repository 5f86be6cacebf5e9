import type { ReplyStatus } from '../../shared/wire/reply.ts';

export type DialFailure = Extract<ReplyStatus, 'refused' | 'unreachable' | 'timeout' | 'limit'>;

/** connect(2), Linux: what each errno says of the destination, or of this host. */
const BY_ERRNO: Record<string, DialFailure> = {
  ECONNREFUSED: 'refused',
  ECONNRESET: 'refused',
  ETIMEDOUT: 'timeout',
  EMFILE: 'limit',
  ENFILE: 'limit',
  ENOBUFS: 'limit',
  ENOMEM: 'limit',
  EAGAIN: 'limit',
  // No free local port; or, for a family that this host does not have, no address to connect from.
  EADDRNOTAVAIL: 'limit',
};

/** Whatever else connect() says (no route, network down, a local firewall, no such family) is: it cannot be reached. */
export function failureOfErrno(errno: string | undefined): DialFailure {
  return BY_ERRNO[errno ?? ''] ?? 'unreachable';
}

/**
 * The one answer for several addresses: a refusal is a word from the destination itself, a limit is ours to mend;
 * silence says more than a missing route.
 */
const WEIGHT: readonly DialFailure[] = ['unreachable', 'timeout', 'limit', 'refused'];

export function weightiest(failures: readonly DialFailure[]): DialFailure {
  const weight = Math.max(0, ...failures.map((failure) => WEIGHT.indexOf(failure)));
  return WEIGHT[weight] ?? 'unreachable';
}
