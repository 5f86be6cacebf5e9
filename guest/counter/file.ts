import { randomBytes } from 'node:crypto';
import { closeSync, fdatasync, openSync, readSync, writeSync } from 'node:fs';
import { link, mkdir, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { isPosternError, PosternError } from '../../shared/errors.ts';
import { tryLock } from '../../shared/transport/native/libc.ts';
import {
  type Anchor,
  type AnchorHead,
  type AnchorResult,
  type AnchorStep,
  type AnchorVolume,
  equalHeads,
} from './anchor.ts';
import {
  encodeFirst,
  encodeHead,
  HEAD_FILE_BYTES,
  newestHead,
  slotOffset,
  type TurnedHead,
} from './file-head.ts';

/** How long one advance waits for another process's; each takes milliseconds. */
const LOCK_TIMEOUT_MS = 5000;
const LOCK_POLL_MS = 10;

type Sync = (fd: number) => Promise<void>;
const dataSync: Sync = promisify(fdatasync);

/**
 * Heads in a folder, a file each (file.md). Durable, and no protection at all: whoever can write the folder can turn every
 * volume back. For development only, which `capabilities` makes everybody say who uses it.
 *
 * An advance opens, locks, reads and writes at once and waits for the disk alone: these calls take microseconds each, since
 * all of the file is in the page cache, and a turn through the thread pool for each of them takes longer than all of them.
 */
export class FileAnchor implements Anchor {
  readonly capabilities = { kind: 'file', production: false, maxLeaves: Number.MAX_SAFE_INTEGER } as const;
  readonly #folder: string;
  readonly #sync: Sync;
  /** Turns that this process saw reach the disk, by file. */
  readonly #synced = new Map<string, number>();

  /** `sync` is for tests that look at what is on the disk when. */
  constructor(folder: string, sync: Sync = dataSync) {
    this.#folder = folder;
    this.#sync = sync;
  }

  async create(volume: AnchorVolume, first: AnchorHead): Promise<'created' | 'exists'> {
    return this.#reach(async () => {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      if (await this.#createFile(this.#path(volume), first)) return 'created';
      // What is there is a head, or an error.
      await this.read(volume);
      return 'exists';
    });
  }

  async read(volume: AnchorVolume): Promise<AnchorHead | undefined> {
    return this.#reach(async () => {
      const path = this.#path(volume);
      const fd = openExisting(path, 'r');
      if (fd === undefined) return undefined;
      try {
        return (await settled(fd, path)).head;
      } finally {
        closeSync(fd);
      }
    });
  }

  async advance(volume: AnchorVolume, step: AnchorStep): Promise<AnchorResult> {
    const last = step.leaves.at(-1);
    if (last === undefined) throw new RangeError('an advance along no leaves');
    return this.#reach(async () => {
      const path = this.#path(volume);
      const fd = openExisting(path, 'r+');
      if (fd === undefined) return { outcome: 'conflict', head: undefined };
      try {
        await lock(fd, path);
        return await this.#move(fd, path, step.from, last);
      } finally {
        closeSync(fd);
      }
    });
  }

  /** Under the lock: from `from` to `last`, on the disk when it resolves. */
  async #move(fd: number, path: string, from: AnchorHead, last: AnchorHead): Promise<AnchorResult> {
    const now = load(fd, path);
    const isThere = equalHeads(now.head, last);
    if (!isThere && !equalHeads(now.head, from)) return { outcome: 'conflict', head: now.head };
    // Whoever wrote it may have died, or failed, before it was on the disk: again, before the one under it is given up.
    if (isThere || this.#synced.get(path) !== now.turn) await this.#write(fd, path, now);
    if (!isThere) await this.#write(fd, path, { turn: now.turn + 1, head: last });
    return { outcome: 'advanced' };
  }

  async #write(fd: number, path: string, record: TurnedHead): Promise<void> {
    this.#synced.delete(path);
    const bytes = encodeHead(record);
    const written = writeSync(fd, bytes, 0, bytes.length, slotOffset(record.turn));
    if (written !== bytes.length) throw new PosternError('ERR_ANCHOR_UNAVAILABLE', 'a record was cut short');
    await this.#sync(fd);
    this.#synced.set(path, record.turn);
  }

  #path(volume: AnchorVolume): string {
    return join(this.#folder, `${volume.anchorId.toString('hex')}.anchor`);
  }

  /** The file is there whole and durable, or not at all; false when it was there before. */
  async #createFile(path: string, head: AnchorHead): Promise<boolean> {
    const draft = `${path}.${randomBytes(6).toString('hex')}`;
    const file = await open(draft, 'wx', 0o600);
    try {
      await file.writeFile(encodeFirst(head));
      await file.sync();
      return await linkOnce(draft, path);
    } finally {
      await file.close();
      await unlink(draft);
      const folder = await open(this.#folder, 'r');
      await folder.sync().finally(() => folder.close());
    }
  }

  async #reach<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === undefined || error instanceof PosternError) throw error;
      const denied = code === 'EACCES' || code === 'EPERM' || code === 'EROFS';
      throw new PosternError(
        denied ? 'ERR_ANCHOR_DENIED' : 'ERR_ANCHOR_UNAVAILABLE',
        `${this.#folder}: ${(error as Error).message}`,
        { cause: error },
      );
    }
  }
}

/** @throws ERR_ANCHOR_CORRUPT */
function load(fd: number, path: string): TurnedHead {
  const bytes = Buffer.alloc(HEAD_FILE_BYTES + 1);
  const length = readSync(fd, bytes, 0, bytes.length, 0);
  return newestHead(bytes.subarray(0, length), path);
}

/** As `load`; what looks damaged to a reader without the lock may be a record that is just being written. */
async function settled(fd: number, path: string): Promise<TurnedHead> {
  try {
    return load(fd, path);
  } catch (error) {
    if (!isPosternError(error, 'ERR_ANCHOR_CORRUPT')) throw error;
    await lock(fd, path);
    return load(fd, path);
  }
}

/** One at a time, of all processes; the lock ends with the descriptor, and so with its process. */
async function lock(fd: number, path: string): Promise<void> {
  const endMs = performance.now() + LOCK_TIMEOUT_MS;
  while (!tryLock(fd)) {
    if (performance.now() > endMs) {
      throw new PosternError('ERR_ANCHOR_UNAVAILABLE', `${path} is held by another process`);
    }
    await delay(LOCK_POLL_MS);
  }
}

/** Undefined when there is no such file. */
function openExisting(path: string, flags: 'r' | 'r+'): number | undefined {
  try {
    return openSync(path, flags);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

async function linkOnce(draft: string, path: string): Promise<boolean> {
  try {
    await link(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}
