import { isPosternError, PosternError } from '../../shared/errors.ts';
import { deadlinePassed, type Work } from './limits.ts';
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

/** An exchange that was begun before it was known to be needed. */
export interface HeadStart {
  readonly way: Upstream;
  readonly message: Promise<Message>;
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

  constructor(resolvers: readonly UpstreamResolver[]) {
    this.#resolvers = resolvers;
  }

  /** Asks ahead: the first way of the first resolver, for an `ask` of the same question that is likely to follow. */
  begin(name: DomainName, type: number, work: Work): HeadStart | undefined {
    const [resolver] = this.#resolvers;
    const [way, second] = resolver === undefined ? [] : this.#waysOf(resolver);
    if (way === undefined) return undefined;
    const timeoutMs = second === undefined ? LAST_WAY_TIMEOUT_MS : FIRST_WAY_TIMEOUT_MS;
    const message = exchange(way, name, type, work, timeoutMs);
    // Whoever asks hears of the failure; perhaps nobody does.
    message.catch(() => {});
    return { way, message };
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
          const begun = early?.way === way ? early.message : undefined;
          const message = await (begun ?? exchange(way, name, type, work, timeoutMs));
          if ((message.flags & FLAG.TC) !== 0) {
            failed ??= new PosternError('ERR_DNS_UPSTREAM', `${way.name} truncated its answer`);
            continue;
          }
          if (!USABLE_RCODES.has(message.rcode)) throw refusal(way, name, type, message);
          if (message.question?.name.equals(name) !== true || message.question.type !== type) {
            throw new PosternError('ERR_DNS_UPSTREAM', `${way.name} answered another question`);
          }
          const response = toResponse(message, resolver.name);
          try {
            return await judge(response);
          } catch (error) {
            if (!isPosternError(error) || isFinal(error)) throw error;
            judged ??= withSource(error, response);
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
): Promise<Message> {
  work.countUpstreamQuestion();
  const controller = new AbortController();
  // Not AbortSignal.timeout: it cannot be taken back, and firing it long after the answer costs more than the answer.
  const { leftMs } = work;
  const timer = setTimeout(() => controller.abort(), Math.min(timeoutMs, leftMs));
  try {
    return readMessage(await way.exchange(encodeQuery(name, type), { signal: controller.signal }));
  } catch (error) {
    // A timer may fire a moment before its time: who was the shorter one tells, not the clock.
    if (controller.signal.aborted && leftMs <= timeoutMs) throw deadlinePassed();
    work.checkDeadline();
    if (isPosternError(error, 'ERR_DNS_MALFORMED')) {
      throw new PosternError('ERR_DNS_MALFORMED', `${way.name}: ${error.message}`, { cause: error });
    }
    throw error;
  } finally {
    clearTimeout(timer);
  }
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
