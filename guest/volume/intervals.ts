/** Disjoint, sorted, half-open intervals of whole numbers; neighbours are joined. */
export class IntervalSet {
  #starts: number[] = [];
  #ends: number[] = [];

  get count(): number {
    return this.#starts.length;
  }

  add(start: number, end: number): void {
    const from = this.#firstEndingAtOrAfter(start);
    let to = from;
    let newStart = start;
    let newEnd = end;
    for (; to < this.#starts.length; to += 1) {
      const otherStart = this.#starts[to] ?? 0;
      if (otherStart > end) break;
      newStart = Math.min(newStart, otherStart);
      newEnd = Math.max(newEnd, this.#ends[to] ?? 0);
    }
    this.#starts.splice(from, to - from, newStart);
    this.#ends.splice(from, to - from, newEnd);
  }

  has(value: number): boolean {
    return this.overlaps(value, value + 1);
  }

  overlaps(start: number, end: number): boolean {
    const index = this.#firstEndingAtOrAfter(start + 1);
    return (this.#starts[index] ?? Number.POSITIVE_INFINITY) < end;
  }

  /** True when all of [start, end) is inside one interval. */
  covers(start: number, end: number): boolean {
    const index = this.#firstEndingAtOrAfter(start + 1);
    return (this.#starts[index] ?? Number.POSITIVE_INFINITY) <= start && (this.#ends[index] ?? 0) >= end;
  }

  *[Symbol.iterator](): Generator<{ readonly start: number; readonly end: number }> {
    for (const [index, start] of this.#starts.entries()) yield { start, end: this.#ends[index] ?? start };
  }

  #firstEndingAtOrAfter(value: number): number {
    let low = 0;
    let high = this.#ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ends[middle] ?? 0) < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Whether a key is in [start, end), in time of whichever is smaller, the map or the range. */
export function hasKeyWithin(map: ReadonlyMap<number, unknown>, start: number, end: number): boolean {
  if (map.size < end - start) {
    for (const key of map.keys()) if (key >= start && key < end) return true;
  } else {
    for (let key = start; key < end; key += 1) if (map.has(key)) return true;
  }
  return false;
}

/** Deletes the keys of [start, end), in time of whichever is smaller, the map or the range. */
export function deleteRange<T>(
  map: Map<number, T>,
  start: number,
  end: number,
  onDelete?: (value: T) => void,
): void {
  const drop = (key: number): void => {
    const value = map.get(key);
    if (value !== undefined && map.delete(key)) onDelete?.(value);
  };
  if (map.size < end - start) {
    for (const key of map.keys()) if (key >= start && key < end) drop(key);
  } else {
    for (let key = start; key < end; key += 1) drop(key);
  }
}
