import type { ErrorCode, PosternError } from '../../shared/errors.ts';
import { BoundedCache } from './cache.ts';
import type { DomainName } from './name.ts';
import { RCODE } from './types.ts';
import type { Verdict } from './verdict.ts';
import type { ZoneStatus } from './zone-status.ts';

/** A failure is remembered just long enough that a repeated question does not repeat its work. */
const BOGUS_TTL_SECONDS = 5;
/** An outage costs waiting, not work, and may be over at once. */
const SILENT_TTL_SECONDS = 1;
const SILENCE: ReadonlySet<ErrorCode> = new Set(['ERR_DNS_UPSTREAM', 'ERR_DNS_TIMEOUT', 'ERR_DNS_DEADLINE']);
/** Some 3,000, which is what a few seconds bring. */
export const FAILURES_MAX_BYTES = 4 * 1024 * 1024;
/** A verdict without its texts: its name and what both consist of. */
const VERDICT_BYTES = 1024;

/** The verdict of a question that failed; `statuses` are the zones that were proven on the way. */
export function failureOf(
  name: DomainName,
  type: number,
  error: PosternError,
  statuses: readonly ZoneStatus[],
): Verdict {
  return {
    name,
    type,
    state: 'bogus',
    rcode: RCODE.SERVFAIL,
    answers: [],
    soa: undefined,
    proof: [],
    ttlSeconds: BOGUS_TTL_SECONDS,
    reason: error.message,
    code: error.code,
    statuses,
  };
}

/** Questions that failed a moment ago. */
export class FailureCache {
  readonly #cache: BoundedCache<Verdict>;

  constructor(maxBytes: number) {
    this.#cache = new BoundedCache(maxBytes);
  }

  get(key: string, nowSeconds: number): Verdict | undefined {
    return this.#cache.get(key, nowSeconds);
  }

  remember(key: string, verdict: Verdict, nowSeconds: number): void {
    const isSilence = verdict.code !== undefined && SILENCE.has(verdict.code);
    const expiresAt = nowSeconds + (isSilence ? SILENT_TTL_SECONDS : BOGUS_TTL_SECONDS);
    const sizeBytes = VERDICT_BYTES + 2 * (verdict.reason.length + verdict.name.key.length);
    // Zones hold keys, and are not to be kept by questions that failed below them.
    this.#cache.set(key, { ...verdict, statuses: [] }, expiresAt, sizeBytes);
  }
}
