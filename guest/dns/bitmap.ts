/** The types at a name, from NSEC and NSEC3 rdata (RFC 4034 section 4.1.2). */
export class TypeBitmap {
  readonly #windows: ReadonlyMap<number, Buffer>;

  private constructor(windows: ReadonlyMap<number, Buffer>) {
    this.#windows = windows;
  }

  /** Undefined where windows are out of order, empty, over 32 octets or cut off. */
  static parse(octets: Buffer): TypeBitmap | undefined {
    const windows = new Map<number, Buffer>();
    let last = -1;
    let at = 0;
    while (at < octets.length) {
      const window = octets[at] ?? 0;
      const length = octets[at + 1] ?? 0;
      const end = at + 2 + length;
      if (window <= last || length < 1 || length > 32 || end > octets.length) return undefined;
      windows.set(window, octets.subarray(at + 2, end));
      last = window;
      at = end;
    }
    return new TypeBitmap(windows);
  }

  has(type: number): boolean {
    const octet = this.#windows.get(type >> 8)?.[(type & 0xff) >> 3] ?? 0;
    return (octet & (0x80 >> (type & 7))) !== 0;
  }

  /** True where no type is listed but those given. */
  hasOnly(types: readonly number[]): boolean {
    for (const [window, octets] of this.#windows) {
      for (let bit = 0; bit < octets.length * 8; bit += 1) {
        const type = (window << 8) | bit;
        if (this.has(type) && !types.includes(type)) return false;
      }
    }
    return true;
  }
}
