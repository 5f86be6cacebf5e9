import { isPosternError } from '../../shared/errors.ts';
import type { Endpoint } from '../../shared/wire/endpoint.ts';

/** Destinations of one association that are remembered; past it the one used longest ago is decided anew. */
export const ROUTES_MAX = 256;
/** How long a decision is good for the next datagrams: as a flow of TCP, it may outlive its lease, and no longer. */
export const ROUTE_KEPT_MS = 10_000;
/** Bytes of datagrams that wait for a name; a client asks again. */
export const WAITING_MAX_BYTES = 64 * 1024;
/** What a datagram that waits costs besides its bytes: empty ones to ever new names are bounded too. */
const WAITING_COST_BYTES = 512;

export interface DatagramTarget {
  readonly host: string;
  readonly port: number;
}

/** The addresses that a target may be sent to, preferred first; none where it is refused, which has been said. */
export type FindAddresses = (target: DatagramTarget) => Promise<readonly string[]>;
export type SendDatagram = (remote: Endpoint, payload: Buffer) => void;

interface Route {
  readonly since: number;
  addresses: readonly string[];
  /** Datagrams that wait for the addresses; undefined once these are known. */
  waiting: Buffer[] | undefined;
}

/** Where the datagrams of one association go. Each is decided by policy, for a short time together with its like. */
export class DatagramRoutes {
  readonly #find: FindAddresses;
  readonly #send: SendDatagram;
  /** By host and port, the one used last at the end. */
  readonly #routes = new Map<string, Route>();
  #waitingBytes = 0;

  constructor(find: FindAddresses, send: SendDatagram) {
    this.#find = find;
    this.#send = send;
  }

  /** Sends it now, or once its target is decided; drops it where that is refused, or too much waits. Keeps a copy. */
  take(target: DatagramTarget, payload: Buffer): void {
    const key = `${target.port} ${target.host}`;
    const known = this.#fresh(key);
    const costBytes = payload.length + WAITING_COST_BYTES;
    const isFull = this.#waitingBytes + costBytes > WAITING_MAX_BYTES;
    if (isFull && known === undefined) return;
    const route = known ?? this.#decide(target);
    this.#routes.delete(key);
    this.#routes.set(key, route);
    this.#forgetOldest();
    if (route.waiting === undefined) this.#forward(route, target.port, payload);
    else if (!isFull) {
      this.#waitingBytes += costBytes;
      route.waiting.push(Buffer.from(payload));
    }
  }

  /** `remote` cannot be reached: names that led there go to their next address. */
  unreachable(remote: Endpoint): void {
    for (const [key, route] of this.#routes)
      if (
        key.startsWith(`${remote.port} `) &&
        route.addresses.length > 1 &&
        route.addresses[0] === remote.address
      )
        route.addresses = route.addresses.slice(1);
  }

  #fresh(key: string): Route | undefined {
    const route = this.#routes.get(key);
    if (route === undefined || route.waiting !== undefined) return route;
    return performance.now() - route.since < ROUTE_KEPT_MS ? route : undefined;
  }

  #decide(target: DatagramTarget): Route {
    const route: Route = { since: performance.now(), addresses: [], waiting: [] };
    void this.#settle(route, target);
    return route;
  }

  async #settle(route: Route, target: DatagramTarget): Promise<void> {
    try {
      route.addresses = await this.#find(target);
    } catch (error) {
      if (!isPosternError(error)) throw error;
    }
    const waiting = route.waiting ?? [];
    route.waiting = undefined;
    for (const payload of waiting) {
      this.#waitingBytes -= payload.length + WAITING_COST_BYTES;
      this.#forward(route, target.port, payload);
    }
  }

  #forward({ addresses: [address] }: Route, port: number, payload: Buffer): void {
    if (address !== undefined) this.#send({ address, port }, payload);
  }

  /** Those that wait are kept: what they hold is bounded by itself. */
  #forgetOldest(): void {
    if (this.#routes.size <= ROUTES_MAX) return;
    for (const [key, { waiting }] of this.#routes) {
      if (waiting !== undefined) continue;
      this.#routes.delete(key);
      return;
    }
  }
}
