import type { ErrorCode } from '../../shared/errors.ts';

interface RetryPace {
  readonly firstMs: number;
  readonly maxMs: number;
}

/** A parent that restarts is back in a second or two; more than 5 s between tries would only prolong an outage. */
const TRANSIENT: RetryPace = { firstMs: 100, maxMs: 5_000 };
/** These end when a person does something, or when another session ends; asking often only fills the parent's log. */
const STUBBORN: RetryPace = { firstMs: 1_000, maxMs: 30_000 };
const STUBBORN_CODES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'ERR_SESSION_TAKEN',
  'ERR_SESSION_UNKNOWN_GUEST',
  'ERR_SESSION_PROOF',
  'ERR_WIRE_VERSION',
  'ERR_TRANSPORT_DENIED',
  'ERR_TRANSPORT_UNSUPPORTED',
]);

/** How long to wait before try number `attempt` (from 0): capped, doubling, and spread so that many guests do not come back at once. */
export function retryDelayMs(attempt: number, code: ErrorCode, random: () => number = Math.random): number {
  const { firstMs, maxMs } = STUBBORN_CODES.has(code) ? STUBBORN : TRANSIENT;
  const ceilingMs = Math.min(maxMs, firstMs * 2 ** Math.min(attempt, 16));
  return Math.round(ceilingMs * (0.5 + random() / 2));
}

/** What a person can do about a session that does not come up; the error itself says what happened. */
export const SESSION_ADVICE: Partial<Record<ErrorCode, string>> = {
  ERR_SESSION_TAKEN:
    'the parent holds a session of this guest under another key; if the guest was rebooted, run "postern parent release GUEST" on the parent',
  ERR_SESSION_UNKNOWN_GUEST:
    'the parent has no guest with this CID or socket path; add it to its configuration',
  ERR_WIRE_VERSION: 'guest and parent speak different versions of the protocol; update the older one',
  ERR_TRANSPORT_REFUSED: 'no parent listens there (yet)',
  ERR_TRANSPORT_UNREACHABLE: 'no parent listens there (yet); on Nitro the parent is CID 3, elsewhere CID 2',
  ERR_TRANSPORT_UNSUPPORTED: 'run "postern doctor" in the guest',
};
