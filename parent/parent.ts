import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { PosternError } from '../shared/errors.ts';
import type { StartFlow } from '../shared/flow/flow.ts';
import type { Logger } from '../shared/log.ts';
import { formatTransportAddress, type TransportAddress } from '../shared/transport/address.ts';
import { listenStream } from '../shared/transport/connect.ts';
import type { OnStream, Stream } from '../shared/transport/transport.ts';
import { ParentMetrics } from './admin/metrics.ts';
import { listenAdmin } from './admin/server.ts';
import { Audit, UNKNOWN_GUEST } from './audit.ts';
import { identityOf, type ParentConfig } from './config/config.ts';
import { openEgress } from './egress/open.ts';
import { Gate } from './gate/gate.ts';
import { Guest } from './guest/guest.ts';
import { openInbound } from './inbound/open.ts';
import { ListenerSet, type Listening, type WantedListener } from './listeners.ts';
import {
  ADMIN_KEY,
  buildRoutes,
  CID_KEY,
  type ForwardRoute,
  NO_ROUTES,
  type Routes,
  socketKey,
} from './routes.ts';
import { type Claims, openClaims } from './session/claims.ts';
import { register } from './session/register.ts';
import { formatTcpAddress } from './tcp/address.ts';
import { listenTcp } from './tcp/listen.ts';

/** How often a drain looks whether the last flow has ended. */
const DRAIN_POLL_MS = 50;
/** After their sessions have ended, sockets close within a turn of the loop or two. */
const RESET_GRACE_MS = 1_000;

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
  readonly #gate: Gate;
  readonly #listeners = new ListenerSet();
  #config: ParentConfig;
  #routes: Routes = NO_ROUTES;
  #phase: Phase = 'starting';
  #changing: Promise<void> = Promise.resolve();

  private constructor(config: ParentConfig, claims: Claims, options: ParentOptions) {
    this.#config = config;
    this.#claims = claims;
    this.#options = options;
    this.#audit = new Audit(options.log);
    this.metrics = new ParentMetrics(options.version, {
      guests: () => this.#routes.guests.values(),
      forwardCount: (guest) => this.#forwardsOf(guest).length,
    });
    this.#gate = this.#makeGate();
  }

  /**
   * Listens on everything or on nothing.
   * @throws PosternError ERR_SESSION_STATE, ERR_LISTEN_FAILED, ERR_TRANSPORT_*
   */
  static async start(config: ParentConfig, options: ParentOptions): Promise<Parent> {
    const parent = new Parent(config, await openClaims(config.state), options);
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
   * @throws PosternError ERR_CONFIG_INVALID, ERR_LISTEN_FAILED, ERR_TRANSPORT_*
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
    this.#options.log.warn({ guest: name }, 'guest released: the next key that registers is taken for it');
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
    await this.close();
    this.#options.log.info({ resetCount }, 'drained');
  }

  /** Ends everything now; live flows are reset. */
  async close(): Promise<void> {
    this.#phase = 'stopped';
    await this.#changing;
    for (const { session } of this.#routes.guests.values()) session?.end('the parent stops');
    const until = performance.now() + RESET_GRACE_MS;
    while (this.#flowCount() > 0 && performance.now() < until) await sleep(DRAIN_POLL_MS);
    await this.#listeners.closeAll();
  }

  async #apply(config: ParentConfig): Promise<void> {
    const guests = new Map<string, Guest>();
    for (const [name, entry] of Object.entries(config.guests)) {
      const known = this.guest(name);
      const same = known !== undefined && known.identity === identityOf(entry);
      guests.set(name, same ? known : await Guest.open(name, entry, this.#claims));
    }
    const routes = buildRoutes(config, guests);
    const change = await this.#listeners.prepare(this.#wanted(config, routes));
    const before = this.#routes.guests;
    // From here on nothing fails.
    this.#routes = routes;
    this.#config = config;
    for (const [name, guest] of guests) {
      const entry = config.guests[name];
      if (entry !== undefined && before.get(name) === guest) guest.reconfigure(entry);
      else this.#warnOfState(guest);
    }
    for (const [name, guest] of before) if (guests.get(name) !== guest) this.#retire(guest, guests.has(name));
    await change.commit();
  }

  #warnOfState(guest: Guest): void {
    const { state } = guest.slot;
    if (state.kind !== 'unusable') return;
    const advice = `the guest is refused until the file is mended, or: postern parent release ${guest.name}`;
    this.#options.log.error({ guest: guest.name, error: state.error.message }, advice);
  }

  #retire(guest: Guest, nameLivesOn: boolean): void {
    guest.retired = true;
    guest.session?.end('the guest was removed from the configuration');
    if (nameLivesOn) return;
    this.#audit.forget(guest.name);
    this.metrics.forget(guest.name);
  }

  #wanted(config: ParentConfig, routes: Routes): WantedListener[] {
    const wanted: WantedListener[] = [];
    const { admin, listen } = config;
    if (listen !== undefined)
      wanted.push(this.#tunnel(CID_KEY, 'listen', listen, (stream) => this.#acceptByCid(stream)));
    for (const [name, { listen: own }] of Object.entries(config.guests)) {
      if (own === undefined) continue;
      const key = socketKey(formatTransportAddress(own));
      wanted.push(
        this.#tunnel(key, `guests.${name}.listen`, own, (stream) => this.#acceptBySocket(key, stream)),
      );
    }
    for (const [key, route] of routes.forwards) wanted.push(this.#forward(key, route));
    if (admin !== 'off') {
      const open = async () => listening(await listenAdmin(admin, this.#adminRoutes()));
      wanted.push({ key: ADMIN_KEY, open });
    }
    return wanted;
  }

  #tunnel(key: string, path: string, address: TransportAddress, onStream: OnStream): WantedListener {
    const open = async (): Promise<Listening> => {
      try {
        const listener = await listenStream(address, onStream);
        return { where: formatTransportAddress(listener.address), close: () => listener.close() };
      } catch (error) {
        if (!(error instanceof PosternError)) throw error;
        throw new PosternError(error.code, `${path}: ${error.message}`, { cause: error });
      }
    };
    return { key, open };
  }

  #forward(key: string, { forward, path, guest }: ForwardRoute): WantedListener {
    const purpose = `${path} (guest ${guest.name})`;
    const open = async () =>
      listening(
        await listenTcp(
          forward.listen,
          purpose,
          (client) => this.#acceptClient(key, client),
          () => this.metrics.onAcceptError(),
        ),
      );
    return { key, open };
  }

  #acceptByCid(stream: Stream): void {
    const guest = stream.peer.kind === 'vsock' ? this.#routes.byCid.get(stream.peer.cid) : undefined;
    this.#accept(guest, stream, stream.peer.kind === 'vsock' ? `CID ${stream.peer.cid}` : stream.peer.kind);
  }

  #acceptBySocket(key: string, stream: Stream): void {
    this.#accept(this.#routes.bySocket.get(key), stream, key);
  }

  #accept(guest: Guest | undefined, stream: Stream, who: string): void {
    if (guest !== undefined) {
      void this.#gate.admit(guest, stream);
      return;
    }
    stream.on('error', () => {});
    const error = new PosternError('ERR_SESSION_UNKNOWN_GUEST', `${who} is no guest of the configuration`);
    this.#gate.refuse(UNKNOWN_GUEST, stream, error);
  }

  #acceptClient(key: string, client: Socket): void {
    const route = this.#routes.forwards.get(key);
    if (route === undefined) {
      client.resetAndDestroy();
      return;
    }
    const { startFlow, log } = this.#options;
    const options = { startFlow, log, audit: this.#audit, observer: this.metrics };
    void openInbound(route.guest, route.forward.to, client, options);
  }

  #makeGate(): Gate {
    const { log, startFlow } = this.#options;
    const draining = () => this.#phase !== 'serving';
    const egress = { startFlow, log, audit: this.#audit, observer: this.metrics, draining };
    return new Gate({
      audit: this.#audit,
      onRefused: (guest, reason) => this.metrics.onRefused(guest, reason),
      onControl: (opened, header) => register(opened, header, log),
      onProven: { tcp: (opened, session) => openEgress(opened, session, egress) },
    });
  }

  #adminRoutes() {
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

  #flowCount(): number {
    let count = 0;
    for (const { usage } of this.#routes.guests.values()) count += usage.flows + usage.inbound;
    return count;
  }
}

function listening(listener: { address: { host: string; port: number }; close(): Promise<void> }): Listening {
  return { where: formatTcpAddress(listener.address), close: () => listener.close() };
}
