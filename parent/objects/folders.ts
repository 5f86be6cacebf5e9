import { closeSync, fsync, openSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';

const sync = promisify(fsync);

/** Folders remembered as safe on the disk; past it the oldest is forgotten, and synced once more when it is used. */
const KNOWN_MAX_FOLDERS = 8192;

/**
 * Makes folder entries outlive a power cut, with as few fsyncs as that takes: calls that come while one is under way
 * share the next.
 */
export class DurableFolders {
  readonly #root: string;
  /** Folders whose own entry, and every entry that an earlier process left in them, is on the disk. */
  readonly #known = new Set<string>();
  readonly #syncing = new Map<string, { readonly running: Promise<void>; next: Promise<void> | undefined }>();
  #failure: unknown;

  constructor(root: string) {
    this.#root = root;
  }

  /**
   * A failed fsync is not repeated: the kernel would say yes to the second and have dropped the data.
   * @throws whatever the first failed fsync threw
   */
  assertSound(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Makes a folder below the root, and its parents, with their entries on the disk. */
  async ensure(folder: string): Promise<void> {
    if (folder === this.#root || this.#known.has(folder)) return;
    const parent = dirname(folder);
    await this.ensure(parent);
    try {
      await mkdir(folder, { mode: 0o700 });
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
    }
    // Also where it was there already: the process that made it may have died before this line.
    await this.sync(parent);
    await this.settle(folder);
  }

  /** Once in this process's life: what an earlier process linked and did not sync. */
  async settle(folder: string): Promise<void> {
    if (this.#known.has(folder)) return;
    await this.sync(folder);
    const oldest = this.#known.keys().next();
    if (this.#known.size >= KNOWN_MAX_FOLDERS && !oldest.done) this.#known.delete(oldest.value);
    this.#known.add(folder);
  }

  /** The folder is gone, or may be. */
  forget(folder: string): void {
    for (let path = folder; path.length > this.#root.length; path = dirname(path)) this.#known.delete(path);
  }

  /** All entries made before this call are on the disk when it resolves. */
  sync(folder: string): Promise<void> {
    const current = this.#syncing.get(folder);
    if (current === undefined) {
      const running = this.#fsync(folder).finally(() => this.#syncing.delete(folder));
      this.#syncing.set(folder, { running, next: undefined });
      return running;
    }
    // The one under way may have begun before this caller's entry was there.
    current.next ??= current.running.then(
      () => this.sync(folder),
      () => this.sync(folder),
    );
    return current.next;
  }

  async #fsync(folder: string): Promise<void> {
    this.assertSound();
    // At once: the caller has just used the folder, so that opening it costs less than a turn of the thread pool.
    const fd = openSync(folder, 'r');
    try {
      await sync(fd);
    } catch (error) {
      this.#failure = error;
      throw error;
    } finally {
      closeSync(fd);
    }
  }
}

export function errnoOf(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}
