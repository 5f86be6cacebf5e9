import { setTimeout as sleep } from 'node:timers/promises';
import { PosternError } from '../shared/errors.ts';
import type { StartFlow } from '../shared/flow/flow.ts';
import type { Logger } from '../shared/log.ts';
import { ParentMetrics } from './admin/metrics.ts';
import type { AdminRoutes } from './admin/server.ts';
import { Audit } from './audit.ts';
import { identityOf, type ParentConfig } from './config/config.ts';
import { Guest } from './guest/guest.ts';
import { type ListenerChange, ListenerSet } from './listeners.ts';
import { ObjectMetrics } from './objects/metrics.ts';
import { ObjectRelay } from './objects/relay.ts';
import { Reception } from './reception.ts';
import { ADMIN_KEY, buildRoutes, NO_ROUTES, type Routes } from './routes.ts';
import { type Claims, openClaims } from './session/claims.ts';
import { wantedListeners } from './wanted.ts';

/** How often a drain looks whether the last flow has ended. */
const DRAIN_POLL_MS = 50;
/** After their sessions have ended, sockets close within a turn of the loop or two. */
const RESET_GRACE_MS = 1_000;
/** For the answers under way on object streams; a guest ends its own as soon as it has them. */
const OBJECTS_GRACE_MS = 2_000;

export interface ParentOptions {
  readonly log: Logger;
  readonly version: string;
  readonly startFlow: StartFlow;
}

type Phase = 'starting' | 'serving' | 'draining' | 'stopped';

/** The parent: serves the guests of one configuration, which may change while it runs. */
export class Parent {
  readonly metrics: ParentMetrics;
  readonly #options: ParentOptions;
  readonly #claims: Claims;
  readonly #audit: Audit;
  readonly #reception: Reception;
  readonly #objectMetrics: ObjectMetrics;
  readonly #listeners = new ListenerSet();
  #config: ParentConfig;
  #routes: Routes = NO_ROUTES;
  #relay: ObjectRelay;
  #phase: Phase = 'starting';
  #changing: Promise<void> = Promise.resolve();

  private constructor(config: ParentConfig, relay: ObjectRelay, claims: Claims, options: ParentOptions) {
    this.#config = config;
    this.#relay = relay;
    this.#claims = claims;
    this.#options = options;
    this.#audit = new Audit(options.log);
    this.metrics = new ParentMetrics(options.version, {
      guests: () => this.#routes.guests.values(),
      forwardCount: (guest) => this.#forwardsOf(guest).length,
    });
    this.#objectMetrics = new ObjectMetrics(this.metrics.registry);
    this.#reception = new Reception({
      log: options.log,
      startFlow: options.startFlow,
      audit: this.#audit,
      metrics: this.metrics,
      routes: () => this.#routes,
      relay: () => this.#relay,
      draining: () => this.#phase !== 'serving',
    });
  }

  /**
   * Listens on everything or on nothing.
   * @throws PosternError ERR_SESSION_STATE, ERR_LISTEN_FAILED, ERR_TRANSPORT_*, ERR_STORE_UNSUITABLE, ERR_CONFIG_UNREADABLE
   */
  static async start(config: ParentConfig, options: ParentOptions): Promise<Parent> {
    const claims = await openClaims(config.state);
    const nothing = await ObjectRelay.open(
      { stores: {}, guests: {} },
      { log: options.log, observe: () => {} },
    );
    const parent = new Parent(config, nothing, claims, options);
    await parent.#apply(config);
    parent.#phase = 'serving';
    return parent;
  }

  /** Where a listener is: `admin`, `tunnel`, or a path of the configuration as `guests.web.forwards[0]`. */
  whereIs(path: string): string | undefined {
    for (const [key, route] of this.#routes.forwards) {
      if (route.path === path) return this.#listeners.get(key)?.where;
    }
    return this.#listeners.get(path)?.where;
  }

  guest(name: string): Guest | undefined {
    return this.#routes.guests.get(name);
  }

  /**
   * Changes over to another configuration, or throws and changes nothing. Flows go on, but for those of guests that
   * the new configuration does not have.
   * @throws PosternError ERR_CONFIG_*, ERR_LISTEN_FAILED, ERR_TRANSPORT_*, ERR_STORE_UNSUITABLE
   */
  reload(config: ParentConfig): Promise<void> {
    const change = this.#changing.then(async () => {
      if (this.#phase !== 'serving') throw new PosternError('ERR_CONFIG_INVALID', 'the parent is stopping');
      if (config.state !== this.#config.state) {
        const text = `state: expected ${this.#config.state} until the parent is restarted, found ${config.state}`;
        throw new PosternError('ERR_CONFIG_INVALID', text);
      }
      await this.#apply(config);
    });
    this.#changing = change.catch(() => {});
    return change;
  }

  /** Forgets the session key of a guest. False: there is none of that name. @throws PosternError ERR_SESSION_STATE */
  async release(name: string): Promise<boolean> {
    const guest = this.guest(name);
    if (guest === undefined) return false;
    await guest.release();
    this.#options.log.warn(
      { event: 'guest.released', guest: name },
      'guest released: the next key that registers is taken for it',
    );
    return true;
  }

  /** Stops accepting, lets flows end for as long as `timeoutMs`, resets those that have not. */
  async drain(timeoutMs: number): Promise<void> {
    this.#phase = 'draining';
    await this.#changing;
    await this.#listeners.closeAll((key) => key === ADMIN_KEY);
    const until = performance.now() + timeoutMs;
    for (const { session } of this.#routes.guests.values()) session?.sendGoaway(timeoutMs);
    while (this.#flowCount() > 0 && performance.now() < until) await sleep(DRAIN_POLL_MS);
    const resetCount = this.#flowCount();
    await this.#drainObjects();
    await this.close();
    this.#options.log.info({ event: 'parent.drained', resetCount }, 'drained');
  }

  /** Ends everything now; live flows are reset. */
  async close(): Promise<void> {
    this.#phase = 'stopped';
    await this.#changing;
    for (const guest of this.#routes.guests.values()) {
      guest.retired = true;
      guest.session?.end('the parent stops');
    }
    const until = performance.now() + RESET_GRACE_MS;
    while (this.#flowCount() > 0 && performance.now() < until) await sleep(DRAIN_POLL_MS);
    await this.#listeners.closeAll();
    this.#relay.retire();
  }

  /** Last, so that the guests' disks work for as long as their flows do. */
  async #drainObjects(): Promise<void> {
    this.#relay.drain();
    const until = performance.now() + OBJECTS_GRACE_MS;
    while (this.#objectStreamCount() > 0 && performance.now() < until) await sleep(DRAIN_POLL_MS);
  }

  async #apply(config: ParentConfig): Promise<void> {
    const guests = new Map<string, Guest>();
    for (const [name, entry] of Object.entries(config.guests)) {
      const known = this.guest(name);
      const same = known !== undefined && known.identity === identityOf(entry);
      guests.set(name, same ? known : await Guest.open(name, entry, this.#claims));
    }
    const routes = buildRoutes(config, guests);
    const relay = await this.#openRelay(config);
    const change = await this.#prepare(config, routes, relay);
    const before = this.#routes.guests;
    const relayBefore = this.#relay;
    // From here on nothing fails.
    this.#routes = routes;
    this.#relay = relay;
    this.#config = config;
    relayBefore.retire(relay);
    for (const [name, guest] of guests) {
      const entry = config.guests[name];
      if (entry !== undefined && before.get(name) === guest) guest.reconfigure(entry);
      else this.#warnOfState(guest);
    }
    for (const [name, guest] of before) if (guests.get(name) !== guest) this.#retire(guest, guests.has(name));
    await change.commit();
  }

  #openRelay(config: ParentConfig): Promise<ObjectRelay> {
    return ObjectRelay.open(
      config,
      {
        log: this.#options.log,
        observe: (guest, observation) => {
          if (this.#routes.guests.has(guest)) this.#objectMetrics.observe(guest, observation);
        },
      },
      this.#relay,
    );
  }

  async #prepare(config: ParentConfig, routes: Routes, relay: ObjectRelay): Promise<ListenerChange> {
    try {
      return await this.#listeners.prepare(
        wantedListeners(config, routes, this.#reception, this.#adminRoutes()),
      );
    } catch (error) {
      relay.retire(this.#relay);
      throw error;
    }
  }

  #warnOfState(guest: Guest): void {
    const { state } = guest.slot;
    if (state.kind !== 'unusable') return;
    const advice = `the guest is refused until the file is mended, or: postern parent release ${guest.name}`;
    this.#options.log.error(
      { event: 'state.unusable', guest: guest.name, error: state.error.message },
      advice,
    );
  }

  #retire(guest: Guest, nameLivesOn: boolean): void {
    guest.retired = true;
    guest.session?.end('the guest was removed from the configuration');
    if (nameLivesOn) return;
    this.#audit.forget(guest.name);
    this.metrics.forget(guest.name);
    void this.#objectMetrics.forget(guest.name);
  }

  #adminRoutes(): AdminRoutes {
    const { registry } = this.metrics;
    return {
      metrics: async () => ({ contentType: registry.contentType, text: await registry.metrics() }),
      unreadiness: () => (this.#phase === 'serving' ? [] : [this.#phase]),
      release: (guest: string) => this.release(guest),
    };
  }

  #forwardsOf(guest: Guest): string[] {
    const open = [...this.#routes.forwards].filter(
      ([key, route]) => route.guest === guest && this.#listeners.get(key),
    );
    return open.map(([key]) => key);
  }

  #objectStreamCount(): number {
    let count = 0;
    for (const { objectStreams } of this.#routes.guests.values()) count += objectStreams.size;
    return count;
  }

  #flowCount(): number {
    let count = 0;
    for (const { usage } of this.#routes.guests.values()) count += usage.flows + usage.inbound;
    return count;
  }
}
