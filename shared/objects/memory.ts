import { allocateBody } from './bodies.ts';
import { checkedStore } from './checked.ts';
import { corrupt } from './failure.ts';
import { LIST_MAX_KEYS, type ListOptions, type ObjectPage, type ObjectStore } from './store.ts';

/** Objects in this process, for tests and simulations: deterministic, each call done within its own microtask. */
export class MemoryObjects implements ObjectStore {
  readonly #objects = new Map<string, Buffer>();

  async putIfAbsent(key: string, bytes: Buffer): Promise<'created' | 'exists'> {
    if (this.#objects.has(key)) return 'exists';
    this.#objects.set(key, Buffer.from(bytes));
    return 'created';
  }

  async get(
    key: string,
    options?: { readonly range?: { readonly offset: number; readonly length: number } },
  ): Promise<Buffer | undefined> {
    const bytes = this.#objects.get(key);
    const range = options?.range;
    if (bytes === undefined) return undefined;
    const { offset, length } = range ?? { offset: 0, length: bytes.length };
    const end = offset + length;
    if (end > bytes.length) throw corrupt(`${key}: a range to ${end} of ${bytes.length} bytes`);
    const copy = allocateBody(length);
    bytes.copy(copy, 0, offset, end);
    return copy;
  }

  async head(key: string): Promise<{ readonly sizeBytes: number } | undefined> {
    const bytes = this.#objects.get(key);
    return bytes && { sizeBytes: bytes.length };
  }

  async list(prefix: string, options?: ListOptions): Promise<ObjectPage> {
    const after = options?.after ?? '';
    const limit = options?.limit ?? LIST_MAX_KEYS;
    const keys = this.keys().filter((key) => key.startsWith(prefix) && key > after);
    const objects = keys
      .slice(0, limit)
      .map((key) => ({ key, sizeBytes: this.#objects.get(key)?.length ?? 0 }));
    return { objects, truncated: keys.length > limit };
  }

  async delete(key: string): Promise<void> {
    this.#objects.delete(key);
  }

  /** Every key in byte order. */
  keys(): string[] {
    return [...this.#objects.keys()].sort();
  }

  /** The object's own bytes, so that a test may look at them, or harm them. */
  peek(key: string): Buffer | undefined {
    return this.#objects.get(key);
  }

  /** Puts in place what no writer could: a host that changes an object. */
  overwrite(key: string, bytes: Buffer): void {
    this.#objects.set(key, bytes);
  }

  /** An independent copy of everything: a host that keeps an old state to bring it back. */
  fork(): MemoryObjects {
    const copy = new MemoryObjects();
    for (const [key, bytes] of this.#objects) copy.overwrite(key, Buffer.from(bytes));
    return copy;
  }
}

/** A checked store over memory; pass the objects to look into them. */
export function createMemoryStore(objects: MemoryObjects = new MemoryObjects()): ObjectStore {
  return checkedStore(objects);
}
