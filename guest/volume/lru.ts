/** Least recently used first; bounded by the bytes of what is kept. */
export class ByteCache<K, V extends { readonly length: number }> {
  readonly #limitBytes: number;
  readonly #onLeave: (value: V) => void;
  readonly #entries = new Map<K, V>();
  #bytes = 0;
  hits = 0;
  misses = 0;

  /** `onLeave` is told of each value that the cache gives up. */
  constructor(limitBytes: number, onLeave: (value: V) => void = () => {}) {
    this.#limitBytes = limitBytes;
    this.#onLeave = onLeave;
  }

  get usedBytes(): number {
    return this.#bytes;
  }

  get(key: K): V | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) {
      this.misses += 1;
      return undefined;
    }
    this.hits += 1;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  has(key: K): boolean {
    return this.#entries.has(key);
  }

  set(key: K, value: V): void {
    this.delete(key);
    this.#entries.set(key, value);
    this.#bytes += value.length;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#limitBytes) break;
      this.delete(oldest);
    }
  }

  delete(key: K): void {
    const value = this.#entries.get(key);
    if (value === undefined) return;
    this.#entries.delete(key);
    this.#bytes -= value.length;
    this.#onLeave(value);
  }
}
