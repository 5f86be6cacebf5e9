interface Entry<V> {
  readonly value: V;
  readonly expiresAt: number;
  readonly sizeBytes: number;
}

/** A cache bounded in bytes; what was used longest ago goes first. Times are seconds of the caller’s clock. */
export class BoundedCache<V> {
  readonly #maxBytes: number;
  readonly #entries = new Map<string, Entry<V>>();
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
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#entries.delete(key);
    if (entry.expiresAt <= nowSeconds) {
      this.#sizeBytes -= entry.sizeBytes;
      return undefined;
    }
    this.#entries.set(key, entry);
    return entry.value;
  }

  /** `sizeBytes` is the caller's estimate of what the value holds in memory. */
  set(key: string, value: V, expiresAt: number, sizeBytes: number): void {
    this.delete(key);
    if (sizeBytes > this.#maxBytes) return;
    this.#entries.set(key, { value, expiresAt, sizeBytes });
    this.#sizeBytes += sizeBytes;
    while (this.#sizeBytes > this.#maxBytes) {
      const oldest = this.#entries.keys().next();
      if (oldest.done) break;
      this.delete(oldest.value);
    }
  }

  delete(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#sizeBytes -= entry.sizeBytes;
  }
}
