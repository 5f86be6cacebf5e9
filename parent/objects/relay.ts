import { isDeepStrictEqual } from 'node:util';
import { isPosternError } from '../../shared/errors.ts';
import { type Logger, LogRateLimiter } from '../../shared/log.ts';
import type { StoreObservation } from '../../shared/objects/observe.ts';
import type { ObjectStore } from '../../shared/objects/store.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import type { GrantConfig, ObjectLimits, StoreConfig, StoresConfig } from './config.ts';
import { createGuestObjects } from './guest-objects.ts';
import { type OpenStore, openStore } from './open-store.ts';
import { type ProvenStore, provenStore } from './proven.ts';
import type { ServedOutcome } from './served-stream.ts';
import type { ObjectService } from './service.ts';

export interface GuestObjectsConfig {
  readonly objects: readonly GrantConfig[];
  readonly objectLimits: ObjectLimits;
}

export interface RelayConfig {
  readonly stores: StoresConfig;
  readonly guests: Readonly<Record<string, GuestObjectsConfig>>;
}

export interface RelayOptions {
  readonly log: Logger;
  observe(guest: string, observation: StoreObservation): void;
}

interface PlacedStore {
  readonly config: StoreConfig;
  readonly opened: OpenStore;
  readonly proven: ProvenStore;
}

interface ServedGuest {
  readonly config: GuestObjectsConfig;
  readonly service: ObjectService;
}

/**
 * The stores of one configuration and the object services of its guests. A reload opens the next from this one, which
 * changes nothing if it fails; then this one retires. What both configurations have alike is one and the same: its
 * streams, its connections and its count of what is used go on.
 */
export class ObjectRelay {
  readonly #stores = new Map<string, PlacedStore>();
  readonly #guests = new Map<string, ServedGuest>();
  readonly #options: RelayOptions;
  /** One line a guest and window, whatever it does. */
  readonly #violations = new LogRateLimiter();

  private constructor(options: RelayOptions) {
    this.#options = options;
  }

  /**
   * Opens the stores that a guest uses. They are probed from then on; one that is out of reach keeps nobody waiting.
   * @throws PosternError ERR_STORE_UNSUITABLE, ERR_CONFIG_UNREADABLE
   */
  static async open(
    config: RelayConfig,
    options: RelayOptions,
    before = new ObjectRelay(options),
  ): Promise<ObjectRelay> {
    const relay = new ObjectRelay(options);
    try {
      for (const [name, guest] of Object.entries(config.guests)) {
        for (const grant of guest.objects) await relay.#openStore(grant, config.stores, before);
        if (guest.objects.length > 0) relay.#openGuest(name, guest, before);
      }
      return relay;
    } catch (error) {
      for (const [name, { opened }] of relay.#stores)
        if (before.#stores.get(name)?.opened !== opened) opened.close();
      throw error;
    }
  }

  /** Whether the guest has any objects; a stream of one that has none is answered `denied`. */
  has(guest: string): boolean {
    return this.#guests.has(guest);
  }

  /**
   * Serves a stream of a guest that `has` objects, behind its reply `ok`, and owns it; `signal` ends it at once.
   * @returns when the stream is closed; a violation of the protocol is logged here
   */
  async serve(guest: string, stream: Stream, signal?: AbortSignal): Promise<ServedOutcome | undefined> {
    const served = this.#guests.get(guest);
    if (served === undefined) {
      stream.destroy();
      return undefined;
    }
    const outcome = await served.service.serve(stream, signal);
    const { violation } = outcome;
    const suppressed = violation === undefined ? undefined : this.#violations.allow(guest);
    if (suppressed !== undefined) {
      const about = { event: 'objects.violation', guest, violation, suppressed };
      this.#options.log.warn(about, 'object stream ended: the guest broke its protocol');
    }
    return outcome;
  }

  /** The guest's session is lost: its streams end now. */
  endGuest(guest: string): void {
    this.#guests.get(guest)?.service.close();
  }

  /** Guests are to finish what is under way and to open no more. */
  drain(): void {
    for (const { service } of this.#guests.values()) service.drain();
  }

  /** Ends what the next relay does not have too; without one, everything. */
  retire(next = new ObjectRelay(this.#options)): void {
    for (const [name, { service }] of this.#guests) {
      if (next.#guests.get(name)?.service !== service) service.close();
    }
    for (const [name, { opened }] of this.#stores) {
      if (next.#stores.get(name)?.opened !== opened) opened.close();
    }
  }

  async #openStore(grant: GrantConfig, stores: StoresConfig, before: ObjectRelay): Promise<void> {
    const name = grant.store;
    const config = stores[name];
    if (config === undefined) throw new RangeError(`no store ${name}`);
    if (this.#stores.has(name)) return;
    const known = before.#stores.get(name);
    if (known !== undefined && isDeepStrictEqual(known.config, config)) {
      this.#stores.set(name, known);
      return;
    }
    const opened = await openStore(config);
    const proven = provenStore(opened.store, grant.prefix);
    this.#stores.set(name, { config, opened, proven });
    void this.#prove(name, proven);
  }

  #openGuest(name: string, config: GuestObjectsConfig, before: ObjectRelay): void {
    const known = before.#guests.get(name);
    const sameStores = config.objects.every(
      ({ store }) => before.#stores.get(store) === this.#stores.get(store),
    );
    const service =
      known !== undefined && sameStores && isDeepStrictEqual(known.config, config)
        ? known.service
        : createGuestObjects(
            config.objects,
            config.objectLimits,
            (store) => this.#storeOf(store),
            (observation) => this.#options.observe(name, observation),
          );
    this.#guests.set(name, { config, service });
  }

  #storeOf(name: string): ObjectStore {
    const placed = this.#stores.get(name);
    if (placed === undefined) throw new RangeError(`no store ${name}`);
    return placed.proven.store;
  }

  /** Says early what a guest would otherwise find out first. */
  async #prove(store: string, proven: ProvenStore): Promise<void> {
    const { log } = this.#options;
    try {
      await proven.prove();
      log.info({ event: 'store.proven', store }, 'the store honours conditional writes');
    } catch (error) {
      if (!isPosternError(error)) throw error;
      const about = { event: 'store.refused', store, code: error.code, reason: error.message };
      if (error.code === 'ERR_STORE_UNSUITABLE') log.error(about, 'the store cannot be used');
      else log.warn(about, 'the store cannot be tried now; it will be when a guest asks');
    }
  }
}
