/** What a cache gives back, and until when it would have. */
export interface Kept<V> {
  readonly value: V;
  /** Seconds of the caller's clock. */
  readonly expiresAt: number;
}

interface Entry<V> extends Kept<V> {
  readonly sizeBytes: number;
  isUsed: boolean;
}

/** An entry, its place in the map (which is half empty after it grew), and the heads of its key and of one more string. */
const ENTRY_BYTES = 200;
/** Entries in use that are passed over for one that goes: a bound on what one insertion may take. */
const SECOND_CHANCES_MAX = 64;

/**
 * A cache bounded in bytes, by what its entries are said to hold. Oldest first, whoever was used since it was looked at
 * last has a second chance (the CLOCK algorithm): unlike a list in the order of use, it costs a hit next to nothing.
 * Times are seconds of the caller’s clock.
 */
export class BoundedCache<V> {
  readonly #maxBytes: number;
  readonly #entries = new Map<string, Entry<V>>();
  #hand: Iterator<[string, Entry<V>]> | undefined;
  #sizeBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get count(): number {
    return this.#entries.size;
  }

  get(key: string, nowSeconds: number): V | undefined {
    return this.find(key, nowSeconds)?.value;
  }

  find(key: string, nowSeconds: number): Kept<V> | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    if (entry.expiresAt <= nowSeconds) {
      this.delete(key);
      return undefined;
    }
    entry.isUsed = true;
    return entry;
  }

  /**
   * `key` has a character for each octet. `valueBytes` is what the value holds in memory, as the caller reckons; the
   * key and what the cache itself needs are added.
   */
  set(key: string, value: V, expiresAt: number, valueBytes: number): void {
    this.delete(key);
    const sizeBytes = valueBytes + key.length + ENTRY_BYTES;
    if (sizeBytes > this.#maxBytes) return;
    // The iterator keeps tables that the map has outgrown: it lives only as long as entries have to go.
    if (this.#sizeBytes + sizeBytes <= this.#maxBytes) this.#hand = undefined;
    while (this.#sizeBytes + sizeBytes > this.#maxBytes) this.#dropOne();
    this.#entries.set(ownOctets(key), { value, expiresAt, sizeBytes, isUsed: false });
    this.#sizeBytes += sizeBytes;
  }

  delete(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#sizeBytes -= entry.sizeBytes;
  }

  #dropOne(): void {
    for (let chances = SECOND_CHANCES_MAX; ; chances -= 1) {
      const [key, entry] = this.#oldest();
      this.delete(key);
      if (!entry.isUsed || chances === 0) return;
      entry.isUsed = false;
      this.#entries.set(key, entry);
      this.#sizeBytes += entry.sizeBytes;
    }
  }

  #oldest(): [string, Entry<V>] {
    this.#hand ??= this.#entries.entries();
    const next = this.#hand.next();
    if (next.done !== true) return next.value;
    this.#hand = undefined;
    if (this.#entries.size === 0) throw new Error('an empty cache holds no octets');
    return this.#oldest();
  }
}

/** The same text in memory of its own: one that was joined or cut out of another keeps what it came from. */
export function ownOctets(octets: string): string {
  return Buffer.from(octets, 'latin1').toString('latin1');
}
