import { PosternError } from '../../shared/errors.ts';

/**
 * What one question of an application may cost. A zone of a hostile owner (KeyTrap, CVE-2023-50387; NSEC3,
 * CVE-2023-50868) or a hostile parent can ask for any amount of work; past a limit the answer is bogus at once.
 */
export interface DnsLimits {
  /** Keys of one tag and algorithm that are tried for a signature: tags collide by chance once in 65,536 pairs. */
  readonly keysPerTag: number;
  /** Signatures of one RRset that reach the cryptography: two algorithms, each in the middle of a rollover. */
  readonly signaturesPerRrset: number;
  /** DS records tried of one delegation: two keys, two algorithms, two digests. */
  readonly dsPerZone: number;
  /** Signature verifications a question: eight for a cold chain of three zones, with room for aliases. */
  readonly verifications: number;
  /** Names hashed for NSEC3 a question. */
  readonly nsec3Names: number;
  /** SHA-1 rounds of those hashes, iterations counted: thirty names at the most iterations that are checked. */
  readonly nsec3Rounds: number;
  /** RFC 9276 section 3.2: above this many iterations an NSEC3 proof is not computed; the answer is insecure. */
  readonly nsec3Iterations: number;
  /** Questions upstream, DS and DNSKEY and repetitions included. */
  readonly upstreamQuestions: number;
  /** CNAME and DNAME steps of one answer. */
  readonly chainHops: number;
  /** From the application's question to our answer. */
  readonly deadlineMs: number;
}

export const DNS_LIMITS: DnsLimits = {
  keysPerTag: 2,
  signaturesPerRrset: 4,
  dsPerZone: 8,
  verifications: 30,
  nsec3Names: 300,
  nsec3Rounds: 30 * 151,
  nsec3Iterations: 150,
  upstreamQuestions: 64,
  chainHops: 12,
  deadlineMs: 10_000,
};

/** A cold chain of three zones with a proof of absence; see `verifications`. */
const VERIFICATIONS_HONEST = 12;

/** The account of one question: what it has cost so far, and the refusal to go on. */
export class Work {
  readonly limits: DnsLimits;
  /** On the clock of `performance.now()`. */
  readonly #deadlineMs: number;
  verifications = 0;
  nsec3Names = 0;
  nsec3Rounds = 0;
  upstreamQuestions = 0;
  /** Digests of verifications that failed, so that an answer asked a second time does not cost a second time. */
  readonly badSignatures = new Set<string>();

  readonly #isOnly: () => boolean;

  /** `isOnly`: no other question is being worked on. */
  constructor(limits: DnsLimits, isOnly: () => boolean = () => false) {
    this.limits = limits;
    this.#isOnly = isOnly;
    this.#deadlineMs = performance.now() + limits.deadlineMs;
  }

  /** Milliseconds that are left for all that is still to do. */
  get leftMs(): number {
    return Math.max(0, this.#deadlineMs - performance.now());
  }

  /** True where this thread has nothing else to do, and the question has not cost more than an honest one does. */
  isAlone(): boolean {
    return this.verifications <= VERIFICATIONS_HONEST && this.#isOnly();
  }

  /** @throws PosternError ERR_DNS_LIMIT */
  countVerification(): void {
    if (this.verifications >= this.limits.verifications) {
      throw overLimit(`more than ${this.limits.verifications} signature verifications`);
    }
    this.verifications += 1;
  }

  /** @throws PosternError ERR_DNS_LIMIT */
  countNsec3(iterations: number): void {
    this.nsec3Names += 1;
    this.nsec3Rounds += iterations + 1;
    if (this.nsec3Names > this.limits.nsec3Names || this.nsec3Rounds > this.limits.nsec3Rounds) {
      throw overLimit(
        `more NSEC3 hashing than ${this.limits.nsec3Names} names or ${this.limits.nsec3Rounds} rounds`,
      );
    }
  }

  /** @throws PosternError ERR_DNS_DEADLINE */
  checkDeadline(): void {
    if (this.leftMs === 0) throw deadlinePassed();
  }

  /** @throws PosternError ERR_DNS_LIMIT, ERR_DNS_DEADLINE */
  countUpstreamQuestion(): void {
    this.checkDeadline();
    if (this.upstreamQuestions >= this.limits.upstreamQuestions) {
      throw overLimit(`more than ${this.limits.upstreamQuestions} questions upstream`);
    }
    this.upstreamQuestions += 1;
  }
}

export function deadlinePassed(): PosternError {
  return new PosternError('ERR_DNS_DEADLINE', 'the deadline of the question has passed');
}

export function overLimit(what: string): PosternError {
  return new PosternError('ERR_DNS_LIMIT', `work limit: the answer would take ${what}`);
}
