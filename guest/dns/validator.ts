import { isPosternError } from '../../shared/errors.ts';
import type { TrustAnchors } from './anchors.ts';
import { type Authentic, Authenticator } from './authenticate.ts';
import { BoundedCache, type Kept } from './cache.ts';
import { TrustChain } from './chain.ts';
import { FAILURES_MAX_BYTES, FailureCache, failureOf } from './failures.ts';
import { DNS_LIMITS, type DnsLimits, overLimit, Work } from './limits.ts';
import { type Link, packLink, toLink, unpackLink } from './link.ts';
import { throughLostDname } from './lost-dname.ts';
import type { DomainName } from './name.ts';
import { Questioner } from './questioner.ts';
import type { Response } from './rrset.ts';
import { chainIn, readStep, type Step, speaksOf, weakest } from './step.ts';
import { RCODE, TYPE } from './types.ts';
import type { UpstreamResolver } from './upstream/upstream.ts';
import type { Unproven, Verdict } from './verdict.ts';
import type { ZoneStatus } from './zone-status.ts';

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
/** No answer is kept longer, whatever its TTL (RFC 8767 section 4 recommends days at most). */
const TTL_MAX_SECONDS = 86_400;
/** An answer with more is not kept for the next link, which is asked for: chains of aliases have a few a link. */
const CARRIED_MAX_RECORDS = 64;

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
  readonly #failures: FailureCache;
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
    this.#failures = new FailureCache(Math.min(cacheBytes, FAILURES_MAX_BYTES));
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
      const held = statuses.length > 0 ? undefined : this.#chain.known(name);
      const verdict = failureOf(name, type, error, held === undefined ? statuses : [held]);
      this.#failures.remember(`${type} ${name.key}`, verdict, this.#now());
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
      response = isSmall(taken.response) ? taken.response : undefined;
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
}

function isSmall(response: Response | undefined): boolean {
  return response !== undefined && response.recordCount <= CARRIED_MAX_RECORDS;
}
