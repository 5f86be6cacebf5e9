import { type ErrorCode, isPosternError, type PosternError } from '../../shared/errors.ts';
import type { TrustAnchors } from './anchors.ts';
import { type Authentic, Authenticator, type DnssecState } from './authenticate.ts';
import { BoundedCache, type Kept } from './cache.ts';
import { TrustChain } from './chain.ts';
import { DNS_LIMITS, type DnsLimits, overLimit, Work } from './limits.ts';
import { type Link, packLink, toLink, unpackLink } from './link.ts';
import { throughLostDname } from './lost-dname.ts';
import type { DomainName } from './name.ts';
import { Questioner } from './questioner.ts';
import type { Response, RRset } from './rrset.ts';
import { chainIn, readStep, type Step, speaksOf, weakest } from './step.ts';
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
  /**
   * The zones that vouch for the links that were proven for this answer, in their order; of a bogus one, those that
   * were. Links from the cache have none: what it keeps is small.
   */
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

/** Over 100,000 names with an address, its signature and a denial, some 600 bytes each. */
export const CACHE_MAX_BYTES = 64 * 1024 * 1024;
/** Of it, for failures: they are kept for seconds. */
const FAILURES_SHARE = 1 / 16;
/** No answer is kept longer, whatever its TTL (RFC 8767 section 4 recommends days at most). */
const TTL_MAX_SECONDS = 86_400;
/** A failure is remembered just long enough that a repeated question does not repeat its work. */
const BOGUS_TTL_SECONDS = 5;
/** An outage costs waiting, not work, and may be over at once. */
const SILENT_TTL_SECONDS = 1;
const SILENCE: ReadonlySet<ErrorCode> = new Set(['ERR_DNS_UPSTREAM', 'ERR_DNS_TIMEOUT', 'ERR_DNS_DEADLINE']);
/** A remembered failure without its texts: the verdict, its name and what they consist of. */
const FAILURE_BYTES = 1024;

interface StepRead {
  readonly step: Step;
  readonly response: Response;
}

interface TakenLink extends Kept<Link> {
  readonly statuses: readonly ZoneStatus[];
  /** What it was read from, which may speak of the next link too. */
  readonly response: Response | undefined;
}

/** A validating forwarder: asks, proves, remembers. Equal questions at one time are one walk. */
export class Validator {
  readonly #questioner: Questioner;
  readonly #chain: TrustChain;
  readonly #authenticator: Authenticator;
  readonly #now: () => number;
  readonly #limits: DnsLimits;
  readonly #links: BoundedCache<string>;
  readonly #failures: BoundedCache<Verdict>;
  readonly #flights = new Map<string, Promise<Verdict>>();
  #cacheHits = 0;
  #cacheMisses = 0;

  constructor({
    resolvers,
    anchors,
    clock,
    monotonic,
    limits,
    cacheBytes = CACHE_MAX_BYTES,
  }: ValidatorOptions) {
    this.#questioner = new Questioner(resolvers);
    this.#chain = new TrustChain(anchors, this.#questioner, clock, monotonic ?? clock);
    this.#authenticator = new Authenticator(anchors, this.#chain, clock);
    this.#now = monotonic ?? clock;
    this.#limits = { ...DNS_LIMITS, ...limits };
    this.#links = new BoundedCache(cacheBytes);
    this.#failures = new BoundedCache(cacheBytes * FAILURES_SHARE);
  }

  /** Links of answers, and the octets that they are taken to hold. */
  get cache(): CacheCounters {
    const { count, sizeBytes } = this.#links;
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
      const sizeBytes = FAILURE_BYTES + 2 * (verdict.reason.length + name.key.length);
      this.#failures.set(`${type} ${name.key}`, verdict, this.#now() + ttlSeconds, sizeBytes);
      return verdict;
    }
  }

  async #follow(name: DomainName, type: number, work: Work, statuses: ZoneStatus[]): Promise<Verdict> {
    const seen = new Set<string>();
    const links: Link[] = [];
    let expiresAt = Number.MAX_SAFE_INTEGER;
    let response: Response | undefined;
    let current: DomainName | undefined = name;
    while (current !== undefined && !seen.has(current.key)) {
      if (seen.size > work.limits.chainHops) throw overLimit(`more than ${work.limits.chainHops} aliases`);
      seen.add(current.key);
      const taken: TakenLink = await this.#link(current, type, response, work);
      links.push(taken.value);
      statuses.push(...taken.statuses);
      expiresAt = Math.min(expiresAt, taken.expiresAt);
      response = taken.response;
      current = taken.value.target;
    }
    const worst = weakest(links);
    const last = links.at(-1);
    return {
      name,
      type,
      state: worst?.state ?? 'indeterminate',
      rcode: last?.rcode ?? RCODE.SERVFAIL,
      answers: links.flatMap((link) => link.rrsets),
      soa: last?.soa,
      proof: links.flatMap((link) => link.proof),
      ttlSeconds: Math.max(0, expiresAt - this.#now()),
      reason: worst?.reason ?? '',
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
  async #link(name: DomainName, type: number, before: Response | undefined, work: Work): Promise<TakenLink> {
    const key = `${type} ${name.key}`;
    const known = this.#links.find(key, this.#now());
    if (known !== undefined) {
      this.#cacheHits += 1;
      const { value, expiresAt } = known;
      return { value: unpackLink(value, name), expiresAt, statuses: [], response: undefined };
    }
    this.#cacheMisses += 1;
    if (before !== undefined && speaksOf(before, name, type)) {
      try {
        const step = await readStep(before, name, type, this.#authenticator, work);
        return this.#remember(key, { step, response: before });
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

  #ask(name: DomainName, type: number, work: Work): Promise<TakenLink> {
    return this.#questioner.ask(name, type, work, async (response) => {
      const read = await this.#read(response, name, type, work);
      return this.#remember(`${type} ${name.key}`, read);
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

  #remember(key: string, { step, response }: StepRead): TakenLink {
    const now = this.#now();
    const ttls = [...step.parts, ...step.rrsets].map((one) => one.ttlSeconds);
    const expiresAt = now + Math.min(TTL_MAX_SECONDS, ...ttls);
    const value = toLink(step);
    if (expiresAt > now) {
      const packed = packLink(value);
      this.#links.set(key, packed, expiresAt, packed.length);
    }
    return { value, expiresAt, statuses: step.parts.map((part) => part.status), response };
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

/** `www.example.com. A`. */
export function questionText(verdict: Verdict): string {
  return `${verdict.name} ${typeName(verdict.type)}`;
}
