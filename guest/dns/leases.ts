import type { DnssecState, Lease, LeaseView } from '../../shared/policy/types.ts';

export interface LeaseOptions {
  /** A lease lives at least so long, whatever its TTL: applications look up first and connect a little later. */
  readonly floorSeconds?: number;
  /** And so much longer than its TTL: resolvers of applications cache too. */
  readonly graceSeconds?: number;
  /** Seconds that never go back. */
  readonly monotonic?: () => number;
}

/** Addresses that one name may lead to at a time; answers carry a handful. */
export const ADDRESSES_PER_NAME_MAX = 64;
/** Names that one address may stand for at a time; a CDN's address stands for as many as the workload asks. */
export const NAMES_PER_ADDRESS_MAX = 256;
/** Leases in all: past it the one that would have ended first goes. */
export const LEASES_MAX = 16_384;
/** And what they hold: room for all of them with ordinary names, not with the longest aliases that there can be. */
export const LEASES_MAX_BYTES = 24 * 1024 * 1024;
/** A lease that is alone at its address, its texts apart (measured). */
const LEASE_BYTES = 850;
const FLOOR_SECONDS = 30;
const GRACE_SECONDS = 30;
/** A full table is not looked through for ended leases more often. */
const SWEEP_INTERVAL_SECONDS = 1;

export interface LeaseGrant {
  /** The name that was asked for, canonical, without its last dot. */
  readonly name: string;
  /** The names from it, itself first, to the owner of the addresses. */
  readonly chain: readonly string[];
  /** Canonical text. */
  readonly addresses: readonly string[];
  readonly ttlSeconds: number;
  readonly dnssec: DnssecState;
}

export interface LiveLease extends Lease {
  readonly address: string;
  readonly chain: readonly string[];
  readonly expiresInSeconds: number;
}

interface Entry {
  readonly name: string;
  readonly address: string;
  readonly chain: readonly string[];
  readonly dnssec: DnssecState;
  expiresAt: number;
}

/**
 * Which names lead to which addresses at the moment, as validated answers said. A lease says where a new flow may go;
 * flows that live are not its business and outlive it.
 */
export class LeaseTable implements LeaseView {
  readonly #floorSeconds: number;
  readonly #graceSeconds: number;
  readonly #now: () => number;
  /** By address, then by name; within an address oldest first. */
  readonly #byAddress = new Map<string, Map<string, Entry>>();
  readonly #byName = new Map<string, Set<string>>();
  #count = 0;
  #sizeBytes = 0;
  #nextSweep = 0;

  constructor(options: LeaseOptions = {}) {
    this.#floorSeconds = options.floorSeconds ?? FLOOR_SECONDS;
    this.#graceSeconds = options.graceSeconds ?? GRACE_SECONDS;
    this.#now = options.monotonic ?? (() => performance.now() / 1000);
  }

  get count(): number {
    return this.#count;
  }

  /** Binds the addresses to the name before the answer is given out. Bogus and indeterminate answers bind nothing. */
  grant({ name, chain, addresses, ttlSeconds, dnssec }: LeaseGrant): void {
    if (dnssec === 'bogus' || dnssec === 'indeterminate') return;
    const expiresAt = this.#now() + Math.max(ttlSeconds, this.#floorSeconds) + this.#graceSeconds;
    for (const address of addresses.slice(0, ADDRESSES_PER_NAME_MAX)) {
      const known = this.#byAddress.get(address)?.get(name);
      // A shorter answer does not shorten what an earlier one promised, unless it validated otherwise.
      const promised = known?.dnssec === dnssec ? Math.max(known.expiresAt, expiresAt) : expiresAt;
      if (known?.dnssec === dnssec && isSame(known.chain, chain)) {
        known.expiresAt = promised;
        continue;
      }
      const entry = { name, address, chain, dnssec, expiresAt: promised };
      this.#remove(address, name);
      this.#makeRoom(entry);
      this.#add(entry);
    }
  }

  namesOf(address: string): readonly Lease[] {
    const entries = this.#byAddress.get(address);
    if (entries === undefined) return [];
    const now = this.#now();
    const live: Lease[] = [];
    for (const entry of [...entries.values()]) {
      if (entry.expiresAt <= now) this.#remove(address, entry.name);
      else live.push({ name: entry.name, dnssec: entry.dnssec });
    }
    return live;
  }

  /** Every live lease, for `postern guest status`. */
  list(): LiveLease[] {
    const now = this.#now();
    this.#dropExpired(now);
    return [...this.#byAddress.values()].flatMap((entries) =>
      [...entries.values()].map(({ expiresAt, ...lease }) => ({
        ...lease,
        expiresInSeconds: expiresAt - now,
      })),
    );
  }

  #makeRoom(entry: Entry): void {
    const { address, name } = entry;
    const names = this.#byAddress.get(address);
    if (names !== undefined && names.size >= NAMES_PER_ADDRESS_MAX) this.#dropFirst(names.values());
    const addresses = this.#byName.get(name);
    if (addresses !== undefined && addresses.size >= ADDRESSES_PER_NAME_MAX) {
      const own = [...addresses].map((one) => this.#byAddress.get(one)?.get(name));
      this.#dropFirst(own.filter((one) => one !== undefined));
    }
    if (this.#hasRoom(entry)) return;
    const now = this.#now();
    if (now >= this.#nextSweep) {
      this.#nextSweep = now + SWEEP_INTERVAL_SECONDS;
      this.#dropExpired(now);
    }
    // Still full: the oldest address goes with all its names, which is cheap and close enough to the first to end.
    while (!this.#hasRoom(entry)) {
      const oldest = this.#byAddress.values().next();
      if (oldest.done) break;
      this.#dropFirst(oldest.value.values());
    }
  }

  #hasRoom(entry: Entry): boolean {
    return this.#count < LEASES_MAX && this.#sizeBytes + entryBytes(entry) <= LEASES_MAX_BYTES;
  }

  #dropFirst(entries: Iterable<Entry>): void {
    let first: Entry | undefined;
    for (const entry of entries) {
      if (first === undefined || entry.expiresAt < first.expiresAt) first = entry;
    }
    if (first !== undefined) this.#remove(first.address, first.name);
  }

  #dropExpired(now: number): void {
    for (const entries of [...this.#byAddress.values()]) {
      for (const entry of [...entries.values()]) {
        if (entry.expiresAt <= now) this.#remove(entry.address, entry.name);
      }
    }
  }

  #add(entry: Entry): void {
    const entries = this.#byAddress.get(entry.address) ?? new Map<string, Entry>();
    const addresses = this.#byName.get(entry.name) ?? new Set<string>();
    this.#byAddress.set(entry.address, entries.set(entry.name, entry));
    this.#byName.set(entry.name, addresses.add(entry.address));
    this.#count += 1;
    this.#sizeBytes += entryBytes(entry);
  }

  #remove(address: string, name: string): void {
    const entries = this.#byAddress.get(address);
    const entry = entries?.get(name);
    if (entries === undefined || entry === undefined) return;
    entries.delete(name);
    if (entries.size === 0) this.#byAddress.delete(address);
    const addresses = this.#byName.get(name);
    addresses?.delete(address);
    if (addresses?.size === 0) this.#byName.delete(name);
    this.#count -= 1;
    this.#sizeBytes -= entryBytes(entry);
  }
}

/** Texts count twice: they may have been cut out of others. */
function entryBytes({ name, chain }: Entry): number {
  return chain.reduce((sum, one) => sum + 2 * one.length, LEASE_BYTES + 2 * name.length);
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((one, index) => one === b[index]);
}
