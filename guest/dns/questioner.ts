import { isPosternError, PosternError } from '../../shared/errors.ts';
import { deadlinePassed, overLimit, type Work } from './limits.ts';
import { FLAG, type Message, readMessage } from './message.ts';
import type { DomainName } from './name.ts';
import { type Response, toResponse } from './rrset.ts';
import { RCODE, rcodeName, typeName } from './types.ts';
import { encodeQuery } from './upstream/query.ts';
import type { Upstream, UpstreamResolver } from './upstream/upstream.ts';

/** A datagram may be lost: where there is another way, it is taken soon. */
const FIRST_WAY_TIMEOUT_MS = 1_500;
/** A resolver that has to recurse from the root answers within this, or another is asked. */
const LAST_WAY_TIMEOUT_MS = 4_000;

/** A way that kept silent is taken last for so long: a parent that carries no datagrams costs one wait, not one a question. */
const SILENCE_KEPT_MS = 30_000;

/**
 * Answers that are being judged, all questions together: objects take far more than their octets did, and whoever gave
 * them may keep us waiting for the keys. Two thousand questions with honest answers take a quarter of it.
 */
export const JUDGED_MAX_BYTES = 64 * 1024 * 1024;
/** A record's objects, those of its name and its RRset included (measured: 460 to 1,000). */
const RECORD_BYTES = 1000;

/** An exchange that was begun before it was known to be needed; its answer is not read before that. */
export interface HeadStart {
  readonly way: Upstream;
  readonly octets: Promise<Buffer>;
}

/** Looks at an answer; throws a PosternError ERR_DNS_* where another answer may be better. */
export type Judge<T> = (response: Response) => T | Promise<T>;

const USABLE_RCODES = new Set<number>([RCODE.NOERROR, RCODE.NXDOMAIN, RCODE.YXDOMAIN]);

/**
 * Asks the chosen resolvers until an answer satisfies its judge: each resolver quickly, then reliably, then the next.
 * What is called bogus was bad from every one of them.
 */
export class Questioner {
  readonly #resolvers: readonly UpstreamResolver[];
  /** Until when, on the clock of `performance.now()`; it holds ways that exist, which are few. */
  readonly #silentUntil = new Map<Upstream, number>();
  #judgedBytes = 0;

  constructor(resolvers: readonly UpstreamResolver[]) {
    this.#resolvers = resolvers;
  }

  /** Asks ahead: the first way of the first resolver, for an `ask` of the same question that is likely to follow. */
  begin(name: DomainName, type: number, work: Work): HeadStart | undefined {
    const [resolver] = this.#resolvers;
    const [way, second] = resolver === undefined ? [] : this.#waysOf(resolver);
    if (way === undefined) return undefined;
    const timeoutMs = second === undefined ? LAST_WAY_TIMEOUT_MS : FIRST_WAY_TIMEOUT_MS;
    const octets = exchange(way, name, type, work, timeoutMs);
    // Whoever asks hears of the failure; perhaps nobody does.
    octets.catch(() => {});
    return { way, octets };
  }

  /** @throws PosternError ERR_DNS_*: of the first answer that was judged, else of the last resolver that gave none */
  async ask<T>(name: DomainName, type: number, work: Work, judge: Judge<T>, early?: HeadStart): Promise<T> {
    let judged: PosternError | undefined;
    let failed: PosternError | undefined;
    for (const resolver of this.#resolvers) {
      const ways = this.#waysOf(resolver);
      for (const way of ways) {
        const timeoutMs = way === ways.at(-1) ? LAST_WAY_TIMEOUT_MS : FIRST_WAY_TIMEOUT_MS;
        try {
          const begun = early?.way === way ? early.octets : undefined;
          const message = readFrom(way, await (begun ?? exchange(way, name, type, work, timeoutMs)));
          if ((message.flags & FLAG.TC) !== 0) {
            failed ??= new PosternError('ERR_DNS_UPSTREAM', `${way.name} truncated its answer`);
            continue;
          }
          if (!USABLE_RCODES.has(message.rcode)) throw refusal(way, name, type, message);
          if (message.question?.name.equals(name) !== true || message.question.type !== type) {
            throw new PosternError('ERR_DNS_UPSTREAM', `${way.name} answered another question`);
          }
          const response = toResponse(message, resolver.name);
          const heldBytes = this.#hold(message);
          try {
            return await judge(response);
          } catch (error) {
            if (!isPosternError(error) || isFinal(error)) throw error;
            judged ??= withSource(error, response);
          } finally {
            this.#judgedBytes -= heldBytes;
          }
        } catch (error) {
          if (!isPosternError(error) || isFinal(error)) throw error;
          failed = error;
          if (error.code === 'ERR_DNS_TIMEOUT')
            this.#silentUntil.set(way, performance.now() + SILENCE_KEPT_MS);
          // A resolver that was reached and refuses will refuse over its other way too.
          if (error.code === 'ERR_DNS_REFUSED') break;
        }
      }
    }
    throw judged ?? failed ?? new PosternError('ERR_DNS_UPSTREAM', 'no resolver is configured');
  }

  /** @throws PosternError ERR_DNS_LIMIT */
  #hold(message: Message): number {
    const sizeBytes = messageBytes(message);
    if (this.#judgedBytes + sizeBytes > JUDGED_MAX_BYTES)
      throw overLimit('more memory than is left beside the answers to other questions');
    this.#judgedBytes += sizeBytes;
    return sizeBytes;
  }

  #waysOf({ ways }: UpstreamResolver): readonly Upstream[] {
    if (this.#silentUntil.size === 0 || ways.length === 1) return ways;
    const now = performance.now();
    const isSilent = (way: Upstream): boolean => (this.#silentUntil.get(way) ?? 0) > now;
    return [...ways.filter((way) => !isSilent(way)), ...ways.filter(isSilent)];
  }
}

/** More answers do not help against a limit, nor once the deadline is over. */
function isFinal(error: PosternError): boolean {
  return error.code === 'ERR_DNS_LIMIT' || error.code === 'ERR_DNS_DEADLINE';
}

async function exchange(
  way: Upstream,
  name: DomainName,
  type: number,
  work: Work,
  timeoutMs: number,
): Promise<Buffer> {
  work.countUpstreamQuestion();
  const controller = new AbortController();
  // Not AbortSignal.timeout: it cannot be taken back, and firing it long after the answer costs more than the answer.
  const { leftMs } = work;
  const timer = setTimeout(() => controller.abort(), Math.min(timeoutMs, leftMs));
  try {
    return await way.exchange(encodeQuery(name, type), { signal: controller.signal });
  } catch (error) {
    // A timer may fire a moment before its time: who was the shorter one tells, not the clock.
    if (controller.signal.aborted && leftMs <= timeoutMs) throw deadlinePassed();
    work.checkDeadline();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function readFrom(way: Upstream, octets: Buffer): Message {
  try {
    return readMessage(octets);
  } catch (error) {
    if (!isPosternError(error, 'ERR_DNS_MALFORMED')) throw error;
    throw new PosternError('ERR_DNS_MALFORMED', `${way.name}: ${error.message}`, { cause: error });
  }
}

function messageBytes({ answer, authority, additional }: Message): number {
  const records = [...answer, ...authority, ...additional];
  return records.reduce((sum, { rdata }) => sum + RECORD_BYTES + rdata.length, 0);
}

function refusal(way: Upstream, name: DomainName, type: number, message: Message): PosternError {
  const what = `${way.name} answers ${rcodeName(message.rcode)} for ${name} ${typeName(type)}`;
  return new PosternError('ERR_DNS_REFUSED', what);
}

/** Names the resolver; one that sends no signature at all is told apart from one that sends a wrong one. */
function withSource(error: PosternError, response: Response): PosternError {
  if (error.code === 'ERR_DNS_SIGNATURE_MISSING' && !response.hasSignatures) {
    const reason = `${error.message}: the resolver ${response.from} strips DNSSEC records, or they were stripped on the way`;
    return new PosternError('ERR_DNS_STRIPPED', reason, { cause: error });
  }
  return error;
}
