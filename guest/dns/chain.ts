import { isPosternError, PosternError } from '../../shared/errors.ts';
import type { TrustAnchor, TrustAnchors } from './anchors.ts';
import { BoundedCache } from './cache.ts';
import { readDs } from './delegation.ts';
import { usableDs } from './ds.ts';
import { KeyRing, type ZoneKey } from './keys.ts';
import type { Work } from './limits.ts';
import type { DomainName } from './name.ts';
import {
  anchorMismatch,
  isUsableAnchor,
  matchDs,
  type PublishedKeys,
  publishedKeys,
  withClockHint,
} from './published-keys.ts';
import type { Questioner } from './questioner.ts';
import { TYPE } from './types.ts';
import { keyText, type Verified, verifyRrset } from './verify.ts';
import { type SecureZone, statusBytes, type ZoneStatus } from './zone-status.ts';

/** What stands at a name below a secure zone: nothing, a cut into another zone, or a known failure. */
type Delegation =
  | { readonly kind: 'none' }
  | { readonly kind: 'cut'; readonly status: ZoneStatus }
  | { readonly kind: 'bogus'; readonly error: PosternError };

type Found = Delegation & { readonly ttlSeconds: number };

interface Known {
  readonly delegation: Delegation;
  /** When it was proven, in seconds of the cache's clock. */
  readonly since: number;
}

/** Some 2,500 zones of two keys, which are asked for with every answer; or four that publish 64 KiB of keys. */
export const ZONES_MAX_BYTES = 16 * 1024 * 1024;
/** What is known of a name, without the status of its zone. */
const KNOWN_BYTES = 150;
/** A failure with its stack and its cause, their texts apart. */
const ERROR_BYTES = 4096;
/** Keys and DS are looked at again at least so often, whatever their TTL. */
const TTL_MAX_SECONDS = 86_400;
/** So that an answer's second attempt, or the next question, does not walk into the same failure at once. */
const BOGUS_TTL_SECONDS = 5;

/** A failure makes us look at keys again that are older; a forger can cost a zone this many walks and no more. */
const REFRESH_AGE_SECONDS = 30;

/** Proves zones from the anchors down, one delegation a label, and remembers what it proved. */
export class TrustChain {
  readonly #anchors: TrustAnchors;
  readonly #questioner: Questioner;
  readonly #clock: () => number;
  readonly #now: () => number;
  readonly #cache = new BoundedCache<Known>(ZONES_MAX_BYTES);
  readonly #flights = new Map<string, Promise<Delegation>>();

  constructor(anchors: TrustAnchors, questioner: Questioner, clock: () => number, monotonic: () => number) {
    this.#anchors = anchors;
    this.#questioner = questioner;
    this.#clock = clock;
    this.#now = monotonic;
  }

  /**
   * The status of the deepest zone that encloses `target`; the first unsigned delegation on the way ends the walk.
   * `isSigner`: signatures name it, so it is very likely a zone, and its keys are asked for beside its DS.
   * @throws PosternError ERR_DNS_*: the way is broken, which is bogus and never insecure
   */
  async statusOf(target: DomainName, work: Work, isSigner = false): Promise<ZoneStatus> {
    const anchor = this.#anchors.closest(target);
    if (anchor === undefined) return { state: 'indeterminate' };
    if (anchor.negative) {
      const reason = `a negative trust anchor for ${anchor.name}`;
      return { state: 'insecure', at: anchor.name, reason, parent: undefined };
    }
    if (!isUsableAnchor(anchor)) {
      const reason = `the trust anchor of ${anchor.name} has no algorithm and digest that is supported`;
      return { state: 'insecure', at: anchor.name, reason, parent: undefined };
    }
    let status = await this.#anchored(anchor, work);
    let fault: PosternError | undefined;
    for (let count = anchor.name.labelCount + 1; count <= target.labelCount; count += 1) {
      if (status.state !== 'secure') return status;
      const { zone } = status;
      const child = target.suffix(count);
      try {
        const delegation = await this.#shared(child.key, work, () =>
          this.#delegation(zone, child, work, isSigner && count === target.labelCount),
        );
        if (delegation.kind === 'cut') status = delegation.status;
        fault = undefined;
      } catch (error) {
        // Servers answer wrongly for empty non-terminals (NSD 4.6 for one under opt-out). What the same zone proves of a
        // longer name settles this one too: nobody but the zone's own keys can say it, and not from above a cut.
        if (!isPosternError(error) || isOwn(error) || isSilence(error)) throw error;
        fault ??= error;
      }
    }
    if (fault !== undefined) throw fault;
    return status;
  }

  /**
   * Forgets the keys of the zones above `name` that have been known for a while: a rollover may have made them old
   * before their TTL did. True where there was one, and so a failure is worth another look.
   */
  refresh(name: DomainName): boolean {
    const now = this.#now();
    let found = false;
    for (let count = 0; count <= name.labelCount; count += 1) {
      const zone = name.suffix(count);
      for (const key of [zone.key, anchorKey(zone)]) {
        const known = this.#cache.get(key, now);
        if (known?.delegation.kind !== 'cut' || now - known.since < REFRESH_AGE_SECONDS) continue;
        this.#cache.delete(key);
        found = true;
      }
    }
    return found;
  }

  /** The deepest zone above `target` that is proven already: where a chain that broke still held, for a person. */
  known(target: DomainName): ZoneStatus | undefined {
    const anchor = this.#anchors.closest(target);
    if (anchor === undefined) return undefined;
    const keys = [anchorKey(anchor.name)];
    for (let count = anchor.name.labelCount + 1; count <= target.labelCount; count += 1)
      keys.push(target.suffix(count).key);
    const delegations = keys.map((key) => this.#cache.get(key, this.#now())?.delegation);
    return delegations.findLast((delegation) => delegation?.kind === 'cut')?.status;
  }

  async #anchored(anchor: TrustAnchor, work: Work): Promise<ZoneStatus> {
    const found = await this.#shared(anchorKey(anchor.name), work, () => this.#prime(anchor, work));
    if (found.kind !== 'cut') throw new Error('an anchor leads to a zone');
    return found.status;
  }

  /** Cached, or computed once for all who ask at the same time. */
  async #shared(key: string, work: Work, compute: () => Promise<Found>): Promise<Delegation> {
    const known = this.#cache.get(key, this.#now());
    if (known !== undefined) return unlessBogus(known.delegation);
    const flight = this.#flights.get(key);
    if (flight !== undefined) {
      try {
        return await flight;
      } catch (error) {
        // The other question ran out of its own time or work, not ours.
        if (!isPosternError(error) || !isOwn(error)) throw error;
        work.checkDeadline();
      }
    }
    const mine = this.#compute(key, compute);
    this.#flights.set(key, mine);
    try {
      return await mine;
    } finally {
      if (this.#flights.get(key) === mine) this.#flights.delete(key);
    }
  }

  async #compute(key: string, compute: () => Promise<Found>): Promise<Delegation> {
    const now = this.#now();
    try {
      const found = await compute();
      this.#keep(key, found, now, Math.min(found.ttlSeconds, TTL_MAX_SECONDS));
      return found;
    } catch (error) {
      if (isPosternError(error) && !isOwn(error))
        this.#keep(key, { kind: 'bogus', error }, now, BOGUS_TTL_SECONDS);
      throw error;
    }
  }

  #keep(key: string, delegation: Delegation, now: number, ttlSeconds: number): void {
    const sizeBytes = KNOWN_BYTES + delegationBytes(delegation);
    this.#cache.set(key, { delegation, since: now }, now + ttlSeconds, sizeBytes);
  }

  #prime(anchor: TrustAnchor, work: Work): Promise<Found> {
    return this.#questioner.ask(anchor.name, TYPE.DNSKEY, work, (response) => {
      const keys = publishedKeys(response, anchor.name);
      const trusted = keys.zoneKeys.filter((key) => anchor.keys.some((rdata) => rdata.equals(key.rdata)));
      const entries =
        trusted.length > 0 ? trusted : matchDs(usableDs(anchor.ds), anchor.name, keys.zoneKeys, work);
      if (entries.length === 0) throw anchorMismatch(anchor, keys.zoneKeys);
      const entry = `trust anchor ${entries.map((key) => keyText(key)).join(', ')}`;
      return this.#enter(anchor.name, keys, entries, entry, undefined, work);
    });
  }

  async #delegation(zone: SecureZone, child: DomainName, work: Work, isLikely: boolean): Promise<Found> {
    const early = isLikely ? this.#questioner.begin(child, TYPE.DNSKEY, work) : undefined;
    const answer = await this.#questioner.ask(child, TYPE.DS, work, (response) =>
      readDs(response, zone, child, this.#clock(), work),
    );
    const { ttlSeconds } = answer;
    if (answer.kind === 'none') return { kind: 'none', ttlSeconds };
    const unsigned = (reason: string): Found => ({
      kind: 'cut',
      status: { state: 'insecure', at: child, reason, parent: zone },
      ttlSeconds,
    });
    if (answer.kind === 'unsigned')
      return unsigned(answer.reason ?? `${zone.name} proves that ${child} has no DS`);
    const usable = usableDs(answer.records);
    if (usable.length === 0)
      return unsigned(`every DS of ${child} has an algorithm or digest that is not supported`);
    const found = await this.#questioner.ask(
      child,
      TYPE.DNSKEY,
      work,
      (response) => {
        const keys = publishedKeys(response, child);
        const entries = matchDs(usable, child, keys.zoneKeys, work);
        if (entries.length === 0) {
          throw new PosternError(
            'ERR_DNS_KEY_MISSING',
            `no key that ${child} publishes matches its DS in ${zone.name}`,
          );
        }
        const entry = `DS ${entries.map((key) => keyText(key)).join(', ')} in ${zone.name}`;
        return this.#enter(child, keys, entries, entry, zone, work);
      },
      early,
    );
    return { ...found, ttlSeconds: Math.min(found.ttlSeconds, ttlSeconds) };
  }

  /** RFC 4035 section 5.2: the key set counts when a key that is vouched for signed the whole of it. */
  async #enter(
    name: DomainName,
    published: PublishedKeys,
    entries: readonly ZoneKey[],
    entry: string,
    parent: SecureZone | undefined,
    work: Work,
  ): Promise<Found> {
    const vouched = { name, keys: new KeyRing(entries) };
    let verified: Verified;
    try {
      verified = await verifyRrset(published.rrset, vouched, this.#clock(), work);
    } catch (error) {
      throw parent === undefined ? withClockHint(error) : error;
    }
    const zone = {
      name,
      keys: new KeyRing(published.zoneKeys),
      parent,
      entry,
      signedBy: keyText(verified.rrsig),
    };
    return { kind: 'cut', status: { state: 'secure', zone }, ttlSeconds: verified.ttlSeconds };
  }
}

function anchorKey(name: DomainName): string {
  return `anchor ${name.key}`;
}

function delegationBytes(delegation: Delegation): number {
  if (delegation.kind === 'none') return 0;
  if (delegation.kind === 'cut') return statusBytes(delegation.status);
  return ERROR_BYTES + 4 * delegation.error.message.length;
}

function unlessBogus(delegation: Delegation): Delegation {
  if (delegation.kind === 'bogus') throw delegation.error;
  return delegation;
}

/** Nothing came at all: another name would wait as long. */
function isSilence(error: PosternError): boolean {
  return error.code === 'ERR_DNS_TIMEOUT' || error.code === 'ERR_DNS_UPSTREAM';
}

/** A failure of the one who asked rather than of the data. */
function isOwn(error: PosternError): boolean {
  return error.code === 'ERR_DNS_LIMIT' || error.code === 'ERR_DNS_DEADLINE';
}
