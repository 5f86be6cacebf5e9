import { PosternError } from '../../shared/errors.ts';
import { formatAddress, parseAddress } from '../../shared/policy/address.ts';
import type { NameResolver, Resolution, ResolvedAddress, ResolveOptions } from '../resolve/resolver.ts';
import { DomainName } from './name.ts';
import { rdataText } from './presentation.ts';
import { TYPE } from './types.ts';
import type { Validator, Verdict } from './validator.ts';

const STRENGTH = ['bogus', 'indeterminate', 'insecure', 'secure'] as const;

/** The validating resolver as the proxies use it: both families of a name, and how their answers validated. */
export class ValidatingResolver implements NameResolver {
  readonly #validator: Validator;

  constructor(validator: Validator) {
    this.#validator = validator;
  }

  /**
   * A family whose answer is bogus has no addresses here; the weaker of the others is the state of all.
   * @throws PosternError ERR_RESOLVE_NOT_FOUND, ERR_RESOLVE_FAILED (bogus, or no answer), ERR_TRANSPORT_ABORTED
   */
  async resolve(name: string, { signal }: ResolveOptions = {}): Promise<Resolution> {
    const domain = DomainName.parse(name);
    const both = Promise.all([
      this.#validator.resolve(domain, TYPE.A),
      this.#validator.resolve(domain, TYPE.AAAA),
    ]);
    const verdicts = await abortable(both, signal);
    const useful = verdicts.filter((verdict) => addressesOf(verdict).length > 0);
    const [first] = useful;
    if (first === undefined) throw noAddress(name, verdicts);
    const states = useful.map(({ state }) => STRENGTH.indexOf(state));
    return {
      addresses: useful.flatMap((verdict) => addressesOf(verdict)),
      dnssec: STRENGTH[Math.min(...states)],
      chain: chainOf(first),
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

function noAddress(name: string, verdicts: readonly Verdict[]): PosternError {
  const failed = verdicts.find(({ state }) => state === 'bogus');
  if (failed === undefined) return new PosternError('ERR_RESOLVE_NOT_FOUND', `${name} has no address`);
  return new PosternError('ERR_RESOLVE_FAILED', `${name} cannot be resolved: ${failed.reason}`);
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
