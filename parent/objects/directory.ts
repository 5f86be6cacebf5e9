import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, realpath, stat, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PosternError } from '../../shared/errors.ts';
import { allocateBody } from '../../shared/objects/bodies.ts';
import { checkedStore } from '../../shared/objects/checked.ts';
import { ambiguous, corrupt, throwIfAborted, unavailable } from '../../shared/objects/failure.ts';
import {
  type ByteRange,
  LIST_MAX_KEYS,
  type ListOptions,
  OBJECT_MAX_BYTES,
  type ObjectPage,
  type ObjectStore,
  type StoreOptions,
} from '../../shared/objects/store.ts';
import { checkRoot, linkOnce, prepareTemporaryFolder, sizeOf } from './directory-root.ts';
import { OBJECT_MARK, walkKeys } from './directory-walk.ts';
import { DurableFolders, errnoOf } from './folders.ts';

/** Files on their way to becoming objects. One folder for all, so that a crash's leftovers are found at once. */
const TEMPORARY_FOLDER = '%tmp';
/** A symbolic link is an error, and a FIFO in an object's place does not hang the store. */
const READ_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** O_DSYNC: each write returns when its bytes, and the size that they give the file, are on the disk. */
const TEMPORARY_FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_DSYNC;

/**
 * Objects as files of one folder of the parent, which must exist, on one local file system, and belong to this
 * process alone. An object is written to a temporary file, synced, and linked to its name, which is what makes it
 * appear whole, and once; then its folder is synced. Nothing of a half-written object survives a crash but a
 * temporary file, which the next start removes.
 * @throws PosternError ERR_STORE_UNSUITABLE for a folder that cannot serve
 */
export async function openDirectoryStore(path: string): Promise<ObjectStore> {
  const root = await checkRoot(path);
  await prepareTemporaryFolder(`${root}/${TEMPORARY_FOLDER}`);
  return checkedStore(new DirectoryStore(root, await stat(root)));
}

class DirectoryStore implements ObjectStore {
  readonly #root: string;
  readonly #identity: { readonly dev: number; readonly ino: number };
  readonly #folders: DurableFolders;
  /** Files that are linked, or about to be, in folders not yet synced. */
  readonly #linking = new Map<string, number>();
  #temporaryCount = 0;

  constructor(root: string, identity: { readonly dev: number; readonly ino: number }) {
    this.#root = root;
    this.#identity = identity;
    this.#folders = new DurableFolders(root);
  }

  async putIfAbsent(key: string, bytes: Buffer, options?: StoreOptions): Promise<'created' | 'exists'> {
    return this.#guarded(key, async () => {
      const file = this.#fileOf(key);
      const [ensured, written] = await Promise.allSettled([
        this.#ensureFolder(dirname(file)),
        this.#writeTemporary(bytes),
      ]);
      if (written.status === 'rejected') throw written.reason;
      try {
        if (ensured.status === 'rejected') throw ensured.reason;
        throwIfAborted(options?.signal);
        return await this.#link(written.value, file);
      } catch (error) {
        await removeTemporary(written.value);
        throw error;
      }
    });
  }

  async get(
    key: string,
    options?: StoreOptions & { readonly range?: ByteRange },
  ): Promise<Buffer | undefined> {
    return this.#guarded(key, () =>
      this.#withObject(key, async (handle, sizeBytes) => {
        const range = options?.range ?? { offset: 0, length: sizeBytes };
        const end = range.offset + range.length;
        if (end > sizeBytes) throw corrupt(`${key}: a range to ${end} of ${sizeBytes} bytes`);
        return readFully(handle, key, range);
      }),
    );
  }

  async head(key: string): Promise<{ readonly sizeBytes: number } | undefined> {
    return this.#guarded(key, () => this.#withObject(key, async (_, sizeBytes) => ({ sizeBytes })));
  }

  async list(prefix: string, options?: StoreOptions & ListOptions): Promise<ObjectPage> {
    return this.#guarded(prefix, async () => {
      const limit = options?.limit ?? LIST_MAX_KEYS;
      const objects: { key: string; sizeBytes: number }[] = [];
      await this.#checkFolder(`${this.#root}/${prefix.slice(0, prefix.lastIndexOf('/') + 1)}`);
      for await (const key of walkKeys(`${this.#root}/`, prefix, options?.after ?? '')) {
        throwIfAborted(options?.signal);
        const sizeBytes = await sizeOf(this.#fileOf(key));
        // Deleted since the folder was read.
        if (sizeBytes === undefined) continue;
        if (objects.length === limit) return { objects, truncated: true };
        objects.push({ key, sizeBytes });
      }
      if (objects.length === 0) await this.#checkMounted();
      return { objects, truncated: false };
    });
  }

  async delete(key: string): Promise<void> {
    return this.#guarded(key, async () => {
      const file = this.#fileOf(key);
      if (!(await this.#checkFolder(dirname(file)))) return;
      try {
        await unlink(file);
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error;
      }
      await this.#folders.sync(dirname(file));
    });
  }

  #fileOf(key: string): string {
    return `${this.#root}/${key}${OBJECT_MARK}`;
  }

  async #ensureFolder(folder: string): Promise<void> {
    await this.#folders.ensure(folder);
    if (await this.#checkFolder(folder)) return;
    // Somebody removed it since.
    this.#folders.forget(folder);
    await this.#folders.ensure(folder);
  }

  /** A temporary file that holds the bytes, on the disk; without a name in any object's folder yet. */
  async #writeTemporary(bytes: Buffer): Promise<string> {
    this.#temporaryCount += 1;
    const name = `${process.pid}-${this.#temporaryCount}-${randomBytes(6).toString('hex')}`;
    const temporary = `${this.#root}/${TEMPORARY_FOLDER}/${name}`;
    const handle = await open(temporary, TEMPORARY_FLAGS, 0o600);
    try {
      for (let at = 0; at < bytes.length; ) {
        at += (await handle.write(bytes, at, bytes.length - at, at)).bytesWritten;
      }
    } catch (error) {
      await removeTemporary(temporary);
      throw error;
    } finally {
      await handle.close();
    }
    return temporary;
  }

  /** Gives the object its name, durably, and takes the temporary one away. */
  async #link(temporary: string, file: string): Promise<'created' | 'exists'> {
    this.#linking.set(file, (this.#linking.get(file) ?? 0) + 1);
    try {
      const answer = await linkOnce(temporary, file);
      try {
        // Also for `exists`: what this caller now reads there must not be undone by a power cut.
        await Promise.all([this.#folders.sync(dirname(file)), removeTemporary(temporary)]);
      } catch (error) {
        throw ambiguous(`${file}: written, and its folder cannot be synced`, error);
      }
      return answer;
    } finally {
      const count = (this.#linking.get(file) ?? 1) - 1;
      if (count === 0) this.#linking.delete(file);
      else this.#linking.set(file, count);
    }
  }

  async #withObject<T>(
    key: string,
    use: (handle: FileHandle, sizeBytes: number) => Promise<T>,
  ): Promise<T | undefined> {
    const file = this.#fileOf(key);
    const folder = dirname(file);
    if (!(await this.#checkFolder(folder))) return undefined;
    const handle = await this.#openObject(file);
    if (handle === undefined) return undefined;
    try {
      const status = await handle.stat();
      if (!status.isFile() || status.size > OBJECT_MAX_BYTES) throw corrupt(`${key}: not a file of ours`);
      if (this.#linking.has(file)) await this.#folders.sync(folder);
      else await this.#folders.settle(folder);
      return await use(handle, status.size);
    } finally {
      await handle.close();
    }
  }

  async #openObject(file: string): Promise<FileHandle | undefined> {
    try {
      return await open(file, READ_FLAGS);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      await this.#checkMounted();
      return undefined;
    }
  }

  /**
   * Whether the folder is there, under its own name: no part of it is a symbolic link.
   * @throws PosternError ERR_STORE_DENIED
   */
  async #checkFolder(folder: string): Promise<boolean> {
    const plain = folder.endsWith('/') ? folder.slice(0, -1) : folder;
    try {
      if ((await realpath(plain)) === plain) return true;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== 'ENOENT' && errno !== 'ENOTDIR') throw error;
      await this.#checkMounted();
      return false;
    }
    throw new PosternError('ERR_STORE_DENIED', `${plain}: leads through a symbolic link`);
  }

  /**
   * Nothing found says "no such object" only while the folder is the one that was opened: where a disk was
   * unmounted, every object would seem to be gone.
   */
  async #checkMounted(): Promise<void> {
    const now = await stat(this.#root).catch((error: unknown) => {
      throw unavailable(`${this.#root} is gone`, error);
    });
    if (now.ino === this.#identity.ino && now.dev === this.#identity.dev) return;
    throw unavailable(`${this.#root} is another folder than the one that was opened`);
  }

  async #guarded<T>(key: string, work: () => Promise<T>): Promise<T> {
    try {
      this.#folders.assertSound();
      return await work();
    } catch (error) {
      throw storeError(key, error);
    }
  }
}

/** One that cannot be removed waits for the next start. */
async function removeTemporary(temporary: string): Promise<void> {
  await unlink(temporary).catch(() => undefined);
}

async function readFully(handle: FileHandle, key: string, range: ByteRange): Promise<Buffer> {
  const bytes = allocateBody(range.length);
  for (let filled = 0; filled < range.length; ) {
    const { bytesRead } = await handle.read(bytes, filled, range.length - filled, range.offset + filled);
    if (bytesRead === 0) throw corrupt(`${key}: the file ends after ${range.offset + filled} bytes`);
    filled += bytesRead;
  }
  return bytes;
}

/** Errors of the operating system in the terms of the interface; anything else is a bug and goes through. */
function storeError(key: string, error: unknown): unknown {
  const errno = errnoOf(error);
  if (error instanceof PosternError || errno === undefined) return error;
  const message = `${key}: ${errno}`;
  if (errno === 'EACCES' || errno === 'EPERM' || errno === 'EROFS' || errno === 'ELOOP') {
    return new PosternError('ERR_STORE_DENIED', message, { cause: error });
  }
  if (errno === 'ENAMETOOLONG') return new PosternError('ERR_STORE_LIMIT', message, { cause: error });
  return unavailable(message, error);
}
