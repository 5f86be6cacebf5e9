import { type ErrorCode, isPosternError, type PosternError } from '../../shared/errors.ts';
import type { TrustAnchors } from './anchors.ts';
import { type Authentic, Authenticator, type DnssecState } from './authenticate.ts';
import { BoundedCache } from './cache.ts';
import { TrustChain } from './chain.ts';
import { DNS_LIMITS, type DnsLimits, overLimit, Work } from './limits.ts';
import { throughLostDname } from './lost-dname.ts';
import type { DomainName } from './name.ts';
import { Questioner } from './questioner.ts';
import type { Response, RRset } from './rrset.ts';
import { chainIn, readStep, type Step, speaksOf, weakest } from './step.ts';
import { stepBytes } from './step-size.ts';
import { RCODE, TYPE, typeName } from './types.ts';
import type { UpstreamResolver } from './upstream/upstream.ts';
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
  /** The zones that vouch for the answer, in the order of its links; of a bogus one, those that were proven. */
  readonly statuses: readonly ZoneStatus[];
}

/** An answer that nobody vouches for. */
export type Unproven = Pick<Verdict, 'rcode' | 'answers' | 'ttlSeconds'> & {
  readonly authority: readonly RRset[];
};

export interface ValidatorOptions {
  readonly resolvers: readonly UpstreamResolver[];
  readonly anchors: TrustAnchors;
  /** Epoch seconds, from a clock that the guest trusts. */
  readonly clock: () => number;
  /** Seconds that never go back, for what is cached; a wrong turn of the clock must not lengthen it. */
  readonly monotonic?: () => number;
  readonly limits?: Partial<DnsLimits>;
  readonly cacheBytes?: number;
}

export interface CacheCounters {
  readonly count: number;
  readonly sizeBytes: number;
  readonly hits: number;
  readonly misses: number;
}

/** Some 30,000 names with an address or two and their signatures. */
const CACHE_BYTES = 64 * 1024 * 1024;
/** No answer is kept longer, whatever its TTL (RFC 8767 section 4 recommends days at most). */
const TTL_MAX_SECONDS = 86_400;
/** A failure is remembered just long enough that a repeated question does not repeat its work. */
const BOGUS_TTL_SECONDS = 5;
/** An outage costs waiting, not work, and may be over at once. */
const SILENT_TTL_SECONDS = 1;
const SILENCE: ReadonlySet<ErrorCode> = new Set(['ERR_DNS_UPSTREAM', 'ERR_DNS_TIMEOUT', 'ERR_DNS_DEADLINE']);
/** A remembered failure: its reason, and the objects around it. */
const FAILURE_BYTES = 1024;

interface StepRead {
  readonly step: Step;
  readonly response: Response;
}

interface CachedStep {
  readonly step: Step;
  readonly expiresAt: number;
}

/** A validating forwarder: asks, proves, remembers. Equal questions at one time are one walk. */
export class Validator {
  readonly #questioner: Questioner;
  readonly #chain: TrustChain;
  readonly #authenticator: Authenticator;
  readonly #now: () => number;
  readonly #limits: DnsLimits;
  readonly #steps: BoundedCache<CachedStep>;
  readonly #failures: BoundedCache<Verdict>;
  readonly #flights = new Map<string, Promise<Verdict>>();
  #cacheHits = 0;
  #cacheMisses = 0;

  constructor({ resolvers, anchors, clock, monotonic, limits, cacheBytes = CACHE_BYTES }: ValidatorOptions) {
    this.#questioner = new Questioner(resolvers);
    this.#chain = new TrustChain(anchors, this.#questioner, clock, monotonic ?? clock);
    this.#authenticator = new Authenticator(anchors, this.#chain, clock);
    this.#now = monotonic ?? clock;
    this.#limits = { ...DNS_LIMITS, ...limits };
    this.#steps = new BoundedCache(cacheBytes);
    this.#failures = new BoundedCache(cacheBytes >> 4);
  }

  /** Links of answers, and the octets that they are taken to hold. */
  get cache(): CacheCounters {
    const { count, sizeBytes } = this.#steps;
    return { count, sizeBytes, hits: this.#cacheHits, misses: this.#cacheMisses };
  }

  /** Never rejects for what the network or a zone does: that is a verdict. `work` may be given to look at its account. */
  resolve(name: DomainName, type: number, work?: Work): Promise<Verdict> {
    const key = `${type} ${name.key}`;
    const failed = this.#failures.get(key, this.#now());
    if (failed !== undefined) return Promise.resolve(failed);
    const flight = this.#flights.get(key);
    if (flight !== undefined) return flight;
    const account = work ?? new Work(this.#limits, () => this.#flights.size <= 1);
    const mine = this.#resolve(name, type, account).finally(() => this.#flights.delete(key));
    this.#flights.set(key, mine);
    return mine;
  }

  async #resolve(name: DomainName, type: number, work: Work): Promise<Verdict> {
    const statuses: ZoneStatus[] = [];
    try {
      return await this.#follow(name, type, work, statuses);
    } catch (error) {
      if (!isPosternError(error)) throw error;
      const verdict = this.#failure(name, type, error, statuses);
      const ttlSeconds = SILENCE.has(error.code) ? SILENT_TTL_SECONDS : BOGUS_TTL_SECONDS;
      this.#failures.set(`${type} ${name.key}`, verdict, this.#now() + ttlSeconds, FAILURE_BYTES);
      return verdict;
    }
  }

  async #follow(name: DomainName, type: number, work: Work, statuses: ZoneStatus[]): Promise<Verdict> {
    const seen = new Set<string>();
    const answers: RRset[] = [];
    const parts: Authentic[] = [];
    let expiresAt = Number.MAX_SAFE_INTEGER;
    let last: Step | undefined;
    let response: Response | undefined;
    let current: DomainName | undefined = name;
    while (current !== undefined && !seen.has(current.key)) {
      if (seen.size > work.limits.chainHops) throw overLimit(`more than ${work.limits.chainHops} aliases`);
      seen.add(current.key);
      const taken = await this.#step(current, type, response, work);
      const { step } = taken.cached;
      response = taken.response;
      answers.push(...step.rrsets);
      parts.push(...step.parts);
      statuses.push(...step.parts.map((part) => part.status));
      expiresAt = Math.min(expiresAt, taken.cached.expiresAt);
      last = step;
      current = step.kind === 'alias' ? step.target : undefined;
    }
    const worst = weakest(parts);
    return {
      name,
      type,
      state: worst?.state ?? 'indeterminate',
      rcode: last?.rcode ?? RCODE.SERVFAIL,
      answers,
      soa: last?.soa,
      proof: parts.flatMap((part) => part.proof ?? []),
      ttlSeconds: Math.max(0, expiresAt - this.#now()),
      reason: worst === undefined ? '' : whyNotSecure(worst),
      code: undefined,
      statuses,
    };
  }

  /**
   * What the first resolver says, proven or not, for an application that asked with CD; undefined where none answers.
   * Nothing of it is kept.
   */
  async fetch(name: DomainName, type: number): Promise<Unproven | undefined> {
    const work = new Work(this.#limits);
    try {
      return await this.#questioner.ask(name, type, work, (response) => ({
        rcode: response.rcode,
        answers: chainIn(response, name, type),
        authority: [],
        ttlSeconds: 0,
      }));
    } catch (error) {
      if (!isPosternError(error)) throw error;
      return undefined;
    }
  }

  /** One link: cached, from the answer that gave the link before, or asked for. */
  async #step(
    name: DomainName,
    type: number,
    before: Response | undefined,
    work: Work,
  ): Promise<{ cached: CachedStep; response: Response | undefined }> {
    const key = `${type} ${name.key}`;
    const known = this.#steps.get(key, this.#now());
    if (known !== undefined) {
      this.#cacheHits += 1;
      return { cached: known, response: undefined };
    }
    this.#cacheMisses += 1;
    if (before !== undefined && speaksOf(before, name, type)) {
      try {
        const step = await readStep(before, name, type, this.#authenticator, work);
        return { cached: this.#remember(key, step), response: before };
      } catch (error) {
        // What came along with another answer is a convenience; the name's own answer decides.
        if (!isPosternError(error) || error.code === 'ERR_DNS_LIMIT') throw error;
      }
    }
    try {
      return await this.#ask(name, type, work);
    } catch (error) {
      if (!isPosternError(error) || error.code === 'ERR_DNS_LIMIT' || !this.#chain.refresh(name)) throw error;
      return this.#ask(name, type, work);
    }
  }

  #ask(name: DomainName, type: number, work: Work): Promise<{ cached: CachedStep; response: Response }> {
    return this.#questioner.ask(name, type, work, async (response) => {
      const read = await this.#read(response, name, type, work);
      return { cached: this.#remember(`${type} ${name.key}`, read.step), response: read.response };
    });
  }

  async #read(response: Response, name: DomainName, type: number, work: Work): Promise<StepRead> {
    if (type === TYPE.RRSIG) return { step: await this.#signatureStep(response, name, work), response };
    try {
      return { step: await readStep(response, name, type, this.#authenticator, work), response };
    } catch (error) {
      if (!isPosternError(error, 'ERR_DNS_SIGNATURE_MISSING')) throw error;
      return throughLostDname(error, response, name, type, this.#questioner, this.#authenticator, work);
    }
  }

  /** Signatures are not signed: a question for them has no verdict in a signed zone, and is given none of them. */
  async #signatureStep(response: Response, name: DomainName, work: Work): Promise<Step> {
    const status = await this.#chain.statusOf(name, work);
    const state = status.state === 'insecure' ? 'insecure' : 'indeterminate';
    const reason = 'RRSIG records are not signed and cannot be validated';
    const part: Authentic = { state, ttlSeconds: 0, status, reason };
    return { kind: 'absent', name, rrsets: [], rcode: response.rcode, parts: [part] };
  }

  #remember(key: string, step: Step): CachedStep {
    const now = this.#now();
    const ttls = [...step.parts, ...step.rrsets].map((one) => one.ttlSeconds);
    const expiresAt = now + Math.min(TTL_MAX_SECONDS, ...ttls);
    const cached = { step, expiresAt };
    if (expiresAt > now) this.#steps.set(key, cached, expiresAt, key.length + stepBytes(step));
    return cached;
  }

  #failure(name: DomainName, type: number, error: PosternError, statuses: readonly ZoneStatus[]): Verdict {
    const held = this.#chain.known(name);
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
      statuses: statuses.length > 0 || held === undefined ? statuses : [held],
    };
  }
}

function whyNotSecure(part: Authentic): string {
  if (part.state === 'secure') return '';
  if (part.reason !== undefined) return part.reason;
  const { status } = part;
  if (status.state === 'insecure') return status.reason;
  return 'no trust anchor encloses the name';
}

/** `www.example.com. A`. */
export function questionText(verdict: Verdict): string {
  return `${verdict.name} ${typeName(verdict.type)}`;
}
