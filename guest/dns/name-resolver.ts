import { type ErrorCode, PosternError } from '../../shared/errors.ts';
import { formatAddress, parseAddress } from '../../shared/policy/address.ts';
import type { NameResolver, Resolution, ResolvedAddress, ResolveOptions } from '../resolve/resolver.ts';
import { DomainName } from './name.ts';
import { rdataText } from './presentation.ts';
import { TYPE } from './types.ts';
import type { Validator } from './validator.ts';
import type { Verdict } from './verdict.ts';

const STRENGTH = ['bogus', 'indeterminate', 'insecure', 'secure'] as const;

/** The validating resolver as the proxies use it: both families of a name, and how their answers validated. */
export class ValidatingResolver implements NameResolver {
  readonly #validator: Validator;

  constructor(validator: Validator) {
    this.#validator = validator;
  }

  /**
   * A family whose answer is bogus has no addresses here; the weaker of the others is the state of all.
   * @throws PosternError ERR_RESOLVE_NOT_FOUND, ERR_RESOLVE_FAILED (no resolver answered), ERR_TRANSPORT_ABORTED
   */
  async resolve(name: string, { signal }: ResolveOptions = {}): Promise<Resolution> {
    const domain = DomainName.parse(name);
    const both = Promise.all([
      this.#validator.resolve(domain, TYPE.A),
      this.#validator.resolve(domain, TYPE.AAAA),
    ]);
    const verdicts = await abortable(both, signal);
    const useful = verdicts.filter((verdict) => addressesOf(verdict).length > 0);
    const [weakest] = [...useful].sort((a, b) => STRENGTH.indexOf(a.state) - STRENGTH.indexOf(b.state));
    if (weakest === undefined) return withoutAddress(name, verdicts);
    return {
      addresses: useful.flatMap((verdict) => addressesOf(verdict)),
      dnssec: weakest.state,
      chain: chainOf(weakest),
      reason: weakest.reason,
    };
  }
}

function addressesOf(verdict: Verdict): ResolvedAddress[] {
  const rrset = verdict.answers.find(({ type }) => type === verdict.type);
  return (rrset?.rdata ?? []).flatMap((rdata) => {
    const parsed = parseAddress(rdataText(verdict.type, rdata));
    return parsed === undefined ? [] : [{ address: formatAddress(parsed), ttlSeconds: verdict.ttlSeconds }];
  });
}

function chainOf(verdict: Verdict): string[] {
  const owners = verdict.answers.map((rrset) => rrset.name);
  const names = [verdict.name, ...owners].map((name) => name.toString().slice(0, -1));
  return [...new Set(names)];
}

/** Nothing came that could be judged: no more than an outage, whoever made it. */
const NO_ANSWER: ReadonlySet<ErrorCode> = new Set([
  'ERR_DNS_UPSTREAM',
  'ERR_DNS_TIMEOUT',
  'ERR_DNS_REFUSED',
  'ERR_DNS_DEADLINE',
  'ERR_DNS_MALFORMED',
]);

function withoutAddress(name: string, verdicts: readonly Verdict[]): Resolution {
  const failed = verdicts.filter(({ state }) => state === 'bogus');
  const bogus = failed.find(({ code }) => code !== undefined && !NO_ANSWER.has(code));
  if (bogus?.code !== undefined) {
    return { addresses: [], dnssec: 'bogus', chain: [name], reason: bogus.reason, code: bogus.code };
  }
  const [silent] = failed;
  if (silent === undefined) throw new PosternError('ERR_RESOLVE_NOT_FOUND', `${name} has no address`);
  throw new PosternError('ERR_RESOLVE_FAILED', `${name} cannot be resolved: ${silent.reason}`);
}

/** The walk goes on for others who asked for the same. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(new PosternError('ERR_TRANSPORT_ABORTED', 'the application gave up'));
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
