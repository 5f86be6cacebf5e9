import { type Logger, LogRateLimiter } from '../shared/log.ts';
import { TokenBucket } from './guest/rate.ts';

/** Lines a second that one guest can cause, however many destinations it tries; a burst of ten seconds' worth. */
const LINES_PER_SECOND = 2;
const LINES_BURST = 20;
/** The guest that an unknown CID is counted under; no guest can have this name. */
export const UNKNOWN_GUEST = '(unknown)';

/** Why a stream was turned away before it became a flow. Closed: a label of `streams_refused_total`. */
export type StreamRefusal =
  | 'unknown-guest'
  | 'unregistered'
  | 'unproven'
  | 'malformed'
  | 'version'
  | 'silent'
  | 'crowded'
  | 'taken'
  | 'state';

/** `event` is one of the closed set that docs/configuration.md lists; the rest is about this one. */
export type AuditDetails = { readonly event: string } & Record<string, unknown>;

/**
 * The audit trail: who was refused what, and why. The same thing is said once a window and each guest has its own
 * allowance of lines, so that nobody can drown another's refusals; what was left unsaid is counted in the next line.
 */
export class Audit {
  readonly #log: Logger;
  readonly #limiter = new LogRateLimiter();
  readonly #budgets = new Map<string, { bucket: TokenBucket; unsaid: number }>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /**
   * @param what identifies the repeated thing together with the guest
   * @param level info for what a guest may well do, and could do without end
   */
  say(
    guest: string,
    what: string,
    message: string,
    details: AuditDetails,
    level: 'warn' | 'info' = 'warn',
  ): void {
    const budget = this.#budgetOf(guest);
    const suppressed = this.#limiter.allow(`${guest} ${what}`);
    if (suppressed === undefined) return;
    if (!budget.bucket.tryTake()) {
      budget.unsaid += 1 + suppressed;
      return;
    }
    const unsaid = suppressed + budget.unsaid;
    budget.unsaid = 0;
    this.#log[level]({ guest, ...details, ...(unsaid > 0 ? { unsaid } : {}) }, message);
  }

  /** Of guests that are in the configuration no more. */
  forget(guest: string): void {
    this.#budgets.delete(guest);
  }

  #budgetOf(guest: string): { bucket: TokenBucket; unsaid: number } {
    const known = this.#budgets.get(guest);
    if (known !== undefined) return known;
    const budget = { bucket: new TokenBucket(LINES_PER_SECOND, LINES_BURST), unsaid: 0 };
    this.#budgets.set(guest, budget);
    return budget;
  }
}
