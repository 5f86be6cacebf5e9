import type { ErrorCode } from '../../shared/errors.ts';
import type { DnssecState } from './authenticate.ts';
import type { DomainName } from './name.ts';
import type { RRset } from './rrset.ts';
import { typeName } from './types.ts';
import type { ZoneStatus } from './zone-status.ts';

/** The whole outcome of a question: what may be released, and why. */
export interface Verdict {
  readonly name: DomainName;
  readonly type: number;
  readonly state: DnssecState;
  /** SERVFAIL for a bogus or failed answer. */
  readonly rcode: number;
  /** The chain from the name asked to its data, without signatures; empty when bogus. */
  readonly answers: readonly RRset[];
  readonly soa: RRset | undefined;
  /** The NSEC and NSEC3 records that the verdict rests on. */
  readonly proof: readonly RRset[];
  readonly ttlSeconds: number;
  /** Why it is not secure; empty when it is. */
  readonly reason: string;
  /** What failed, where something did. */
  readonly code: ErrorCode | undefined;
  /**
   * The zones that vouch for the links that were proven for this answer, in their order; of a bogus one, those that
   * were. What comes from the cache has none: it keeps no zones.
   */
  readonly statuses: readonly ZoneStatus[];
}

/** An answer that nobody vouches for. */
export type Unproven = Pick<Verdict, 'rcode' | 'answers' | 'ttlSeconds'> & {
  readonly authority: readonly RRset[];
};

/** `www.example.com. A`. */
export function questionText(verdict: Verdict): string {
  return `${verdict.name} ${typeName(verdict.type)}`;
}
