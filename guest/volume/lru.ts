/** Least recently used first; bounded by the bytes of what is kept. */
export class ByteCache<K> {
  readonly #limitBytes: number;
  readonly #entries = new Map<K, Buffer>();
  #bytes = 0;
  hits = 0;
  misses = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.#bytes;
  }

  get(key: K): Buffer | undefined {
    const bytes = this.#entries.get(key);
    if (bytes === undefined) {
      this.misses += 1;
      return undefined;
    }
    this.hits += 1;
    this.#entries.delete(key);
    this.#entries.set(key, bytes);
    return bytes;
  }

  has(key: K): boolean {
    return this.#entries.has(key);
  }

  set(key: K, bytes: Buffer): void {
    this.delete(key);
    this.#entries.set(key, bytes);
    this.#bytes += bytes.length;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#limitBytes) break;
      this.delete(oldest);
    }
  }

  delete(key: K): void {
    const bytes = this.#entries.get(key);
    if (bytes === undefined) return;
    this.#entries.delete(key);
    this.#bytes -= bytes.length;
  }
}
