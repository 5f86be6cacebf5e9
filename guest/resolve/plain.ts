import { isPosternError, PosternError } from '../../shared/errors.ts';
import type { Endpoint } from '../../shared/wire/endpoint.ts';
import type { FlowOpener } from '../flow/opener.ts';
import type { ParsedAnswer } from './answer.ts';
import { askBoth } from './exchange.ts';
import type { NameResolver, Resolution, ResolvedAddress, ResolveOptions } from './resolver.ts';

/** The servers' port unless the owner of the guest names another. */
export const DNS_PORT = 53;
/** What a recursive server takes for a cold name, and a bit; then the next one is asked. */
export const SERVER_TIMEOUT_MS = 4_000;
/** Names kept with their addresses: a workload speaks to tens of names. */
export const CACHE_MAX_COUNT = 512;
/** A cached address is asked for again at least this often, whatever its TTL says. */
export const CACHE_TTL_MAX_SECONDS = 300;
/** Names being asked for at once; each holds a flow. */
export const PENDING_MAX_COUNT = 128;

/**
 * A stub resolver without validation: asks the owner's servers over TCP, through the parent's own flows, one after
 * the other until one answers. The parent can forge what it says: nothing is known of DNSSEC.
 */
export class PlainResolver implements NameResolver {
  readonly #servers: readonly Endpoint[];
  readonly #opener: FlowOpener;
  readonly #cache = new Map<string, { readonly resolution: Resolution; readonly expiresAt: number }>();
  readonly #pending = new Map<string, Promise<Resolution>>();

  /** `servers`: at least one. */
  constructor(servers: readonly Endpoint[], opener: FlowOpener) {
    this.#servers = servers;
    this.#opener = opener;
  }

  async resolve(name: string, { signal }: ResolveOptions = {}): Promise<Resolution> {
    const cached = this.#cache.get(name);
    if (cached !== undefined && cached.expiresAt > performance.now()) return cached.resolution;
    this.#cache.delete(name);
    return abortable(this.#pending.get(name) ?? this.#begin(name), signal);
  }

  /** One walk over the servers serves all who ask for the name meanwhile; none of them can cancel it for the rest. */
  #begin(name: string): Promise<Resolution> {
    if (this.#pending.size >= PENDING_MAX_COUNT) {
      return Promise.reject(
        new PosternError('ERR_FLOW_LIMIT', `${PENDING_MAX_COUNT} names are being resolved`),
      );
    }
    const walk = this.#walk(name).finally(() => this.#pending.delete(name));
    this.#pending.set(name, walk);
    return walk;
  }

  async #walk(name: string): Promise<Resolution> {
    const failures: unknown[] = [];
    for (const server of this.#servers) {
      try {
        const resolution = await this.#ask(server, name);
        this.#keep(name, resolution);
        return resolution;
      } catch (error) {
        if (!isPosternError(error) || error.code === 'ERR_RESOLVE_NOT_FOUND') throw error;
        // Without a session no other server can be reached either.
        if (error.code === 'ERR_SESSION_LOST') throw error;
        failures.push(error);
      }
    }
    const last = failures.at(-1);
    const detail = last instanceof Error ? last.message : 'no server';
    throw new PosternError('ERR_RESOLVE_FAILED', `${name} cannot be resolved: ${detail}`, { cause: last });
  }

  async #ask({ address, port }: Endpoint, name: string): Promise<Resolution> {
    const labels = { via: 'resolver', protocol: 'tcp', port, rule: 'resolvers' } as const;
    const tunnel = await this.#opener.open([address], labels, AbortSignal.timeout(SERVER_TIMEOUT_MS));
    try {
      const answers = await askBoth(tunnel.stream, name, SERVER_TIMEOUT_MS);
      return combine(name, answers.A, answers.AAAA);
    } finally {
      tunnel.stream.destroy();
    }
  }

  #keep(name: string, resolution: Resolution): void {
    const ttlSeconds = Math.min(
      CACHE_TTL_MAX_SECONDS,
      ...resolution.addresses.map((entry) => entry.ttlSeconds),
    );
    if (ttlSeconds <= 0) return;
    if (this.#cache.size >= CACHE_MAX_COUNT) {
      const oldest = this.#cache.keys().next();
      if (!oldest.done) this.#cache.delete(oldest.value);
    }
    this.#cache.set(name, { resolution, expiresAt: performance.now() + ttlSeconds * 1000 });
  }
}

function combine(name: string, ...answers: readonly ParsedAnswer[]): Resolution {
  const addresses: ResolvedAddress[] = [];
  let chain: readonly string[] = [name];
  for (const answer of answers) {
    if (answer.kind !== 'addresses') continue;
    addresses.push(...answer.addresses);
    chain = answer.chain;
  }
  if (addresses.length > 0) return { addresses, dnssec: undefined, chain };
  const failed = answers.find((answer) => answer.kind === 'failed');
  if (failed?.kind === 'failed') {
    throw new PosternError('ERR_RESOLVE_FAILED', `the server answered ${failed.rcode} for ${name}`);
  }
  throw new PosternError('ERR_RESOLVE_NOT_FOUND', `${name} has no address`);
}

function abortable<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(new PosternError('ERR_TRANSPORT_ABORTED', 'the application gave up'));
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
