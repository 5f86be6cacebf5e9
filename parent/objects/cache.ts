import { createHash } from 'node:crypto';
import { mkdir, open, readdir, realpath, rename, unlink, writeFile } from 'node:fs/promises';
import { PosternError } from '../../shared/errors.ts';
import { allocateBody } from '../../shared/objects/bodies.ts';
import { type ByteRange, OBJECT_MAX_BYTES, type ObjectStore } from '../../shared/objects/store.ts';
import { errnoOf } from './folders.ts';

/** Objects on their way into the cache; a slow disk costs hits and never memory. */
const FILLS_MAX = 8;
const FILE_NAME = /^[0-9a-f]{64}(\.new)?$/;

export interface CacheOptions {
  /** A folder of its own. It is emptied: what is in it is worth nothing after a restart. */
  readonly path: string;
  readonly maxBytes: number;
}

/**
 * Keeps objects that were written or read as a whole on a disk of the parent, least recently used out first, and
 * answers whole and range reads from them. Objects never change, so a hit is as good as the store's own answer, but
 * that one deleted by another parent may still be shown. Its own disk failing only costs hits.
 * @throws PosternError ERR_STORE_UNSUITABLE for a folder that it cannot use, or that holds other files
 */
export async function cachedStore(inner: ObjectStore, options: CacheOptions): Promise<ObjectStore> {
  const files = new CacheFiles(await emptyFolder(options.path), options.maxBytes);
  return {
    async putIfAbsent(key, bytes, putOptions) {
      const answer = await inner.putIfAbsent(key, bytes, putOptions);
      if (answer === 'created') files.fill(key, Buffer.from(bytes), files.deleteCount);
      return answer;
    },
    async get(key, getOptions) {
      const hit = await files.read(key, getOptions?.range);
      if (hit !== undefined) return hit;
      const { deleteCount } = files;
      const bytes = await inner.get(key, getOptions);
      if (bytes !== undefined && getOptions?.range === undefined)
        files.fill(key, Buffer.from(bytes), deleteCount);
      return bytes;
    },
    head: (key, headOptions) => inner.head(key, headOptions),
    list: (prefix, listOptions) => inner.list(prefix, listOptions),
    async delete(key, deleteOptions) {
      await files.drop(key);
      await inner.delete(key, deleteOptions);
      await files.drop(key);
    },
  };
}

class CacheFiles {
  readonly #folder: string;
  readonly #maxBytes: number;
  /** Sizes by key, the least recently used first. */
  readonly #sizes = new Map<string, number>();
  readonly #filling = new Set<string>();
  #usedBytes = 0;
  /** A fill that began before a delete may bring back what that removed; it is not kept. */
  deleteCount = 0;

  constructor(folder: string, maxBytes: number) {
    if (maxBytes < OBJECT_MAX_BYTES) throw new RangeError(`a cache of ${maxBytes} bytes holds no object`);
    this.#folder = folder;
    this.#maxBytes = maxBytes;
  }

  async read(key: string, range: ByteRange | undefined): Promise<Buffer | undefined> {
    const sizeBytes = this.#sizes.get(key);
    if (sizeBytes === undefined) return undefined;
    const { offset, length } = range ?? { offset: 0, length: sizeBytes };
    // Of a range that the object does not have, the store is to say so.
    if (offset + length > sizeBytes) return undefined;
    this.#sizes.delete(key);
    this.#sizes.set(key, sizeBytes);
    return this.#readFile(key, { offset, length });
  }

  /** In the background: nobody waits for a cache. */
  fill(key: string, bytes: Buffer, deleteCount: number): void {
    if (this.#sizes.has(key) || this.#filling.has(key) || this.#filling.size >= FILLS_MAX) return;
    this.#filling.add(key);
    void this.#fill(key, bytes, deleteCount).finally(() => this.#filling.delete(key));
  }

  async drop(key: string): Promise<void> {
    this.deleteCount += 1;
    await this.#remove(key);
  }

  async #fill(key: string, bytes: Buffer, deleteCount: number): Promise<void> {
    const file = this.#fileOf(key);
    try {
      await writeFile(`${file}.new`, bytes, { mode: 0o600 });
      await rename(`${file}.new`, file);
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      await this.#unlink(`${file}.new`);
      return;
    }
    if (deleteCount !== this.deleteCount) return this.#unlink(file);
    this.#sizes.set(key, bytes.length);
    this.#usedBytes += bytes.length;
    for (const oldest of this.#sizes.keys()) {
      if (this.#usedBytes <= this.#maxBytes) return;
      await this.#remove(oldest);
    }
  }

  async #readFile(key: string, { offset, length }: ByteRange): Promise<Buffer | undefined> {
    try {
      const handle = await open(this.#fileOf(key), 'r');
      try {
        const bytes = allocateBody(length);
        const { bytesRead } = await handle.read(bytes, 0, length, offset);
        if (bytesRead === length) return bytes;
      } finally {
        await handle.close();
      }
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
    }
    // Removed in between, or harmed: the store has it.
    await this.#remove(key);
    return undefined;
  }

  async #remove(key: string): Promise<void> {
    const sizeBytes = this.#sizes.get(key);
    if (sizeBytes === undefined) return;
    this.#sizes.delete(key);
    this.#usedBytes -= sizeBytes;
    await this.#unlink(this.#fileOf(key));
  }

  async #unlink(file: string): Promise<void> {
    try {
      await unlink(file);
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
    }
  }

  #fileOf(key: string): string {
    return `${this.#folder}/${createHash('sha256').update(key).digest('hex')}`;
  }
}

async function emptyFolder(path: string): Promise<string> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    const folder = await realpath(path);
    const names = await readdir(folder);
    const foreign = names.find((name) => !FILE_NAME.test(name));
    if (foreign !== undefined) {
      throw new PosternError(
        'ERR_STORE_UNSUITABLE',
        `${path}: a cache needs a folder of its own; here is ${foreign}`,
      );
    }
    for (const name of names) await unlink(`${folder}/${name}`);
    return folder;
  } catch (error) {
    if (error instanceof PosternError || errnoOf(error) === undefined) throw error;
    throw new PosternError('ERR_STORE_UNSUITABLE', `${path}: ${errnoOf(error)}`, { cause: error });
  }
}
