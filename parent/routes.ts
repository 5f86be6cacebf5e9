import { formatTransportAddress } from '../shared/transport/address.ts';
import type { ForwardConfig, ParentConfig } from './config/config.ts';
import type { Guest } from './guest/guest.ts';
import { formatTcpAddress } from './tcp/address.ts';

/** The listener for guests that are known by their CID. */
export const CID_KEY = 'tunnel';
export const ADMIN_KEY = 'admin';

export interface ForwardRoute {
  readonly guest: Guest;
  readonly forward: ForwardConfig;
  /** Where it stands in the configuration. */
  readonly path: string;
}

/**
 * Which guest is behind which listener. A change of the configuration swaps the whole: a listener that stays open
 * looks its guest up anew for each stream and client.
 */
export interface Routes {
  readonly guests: ReadonlyMap<string, Guest>;
  readonly byCid: ReadonlyMap<number, Guest>;
  /** By listener key. */
  readonly bySocket: ReadonlyMap<string, Guest>;
  /** By listener key. */
  readonly forwards: ReadonlyMap<string, ForwardRoute>;
}

export const NO_ROUTES: Routes = {
  guests: new Map(),
  byCid: new Map(),
  bySocket: new Map(),
  forwards: new Map(),
};

/** @param guests one for every entry of `config.guests` */
export function buildRoutes(config: ParentConfig, guests: ReadonlyMap<string, Guest>): Routes {
  const byCid = new Map<number, Guest>();
  const bySocket = new Map<string, Guest>();
  const forwards = new Map<string, ForwardRoute>();
  for (const [name, guest] of guests) {
    const entry = config.guests[name];
    if (entry === undefined) continue;
    if (entry.cid !== undefined) byCid.set(entry.cid, guest);
    if (entry.listen !== undefined) bySocket.set(socketKey(formatTransportAddress(entry.listen)), guest);
    for (const [index, forward] of entry.forwards.entries()) {
      const path = `guests.${name}.forwards[${index}]`;
      forwards.set(forwardKey(forward, path), { guest, forward, path });
    }
  }
  return { guests, byCid, bySocket, forwards };
}

export function socketKey(address: string): string {
  return `tunnel ${address}`;
}

/** The address, so that a forward which moves to another guest keeps its listener; a port of the kernel's choice is nobody else's. */
function forwardKey(forward: ForwardConfig, path: string): string {
  const address = `forward ${formatTcpAddress(forward.listen)}`;
  return forward.listen.port === 0 ? `${address} ${path}` : address;
}
