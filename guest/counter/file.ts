import { randomBytes } from 'node:crypto';
import { type FileHandle, link, mkdir, open, readFile, rename, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { PosternError } from '../../shared/errors.ts';
import {
  type Anchor,
  type AnchorHead,
  type AnchorOptions,
  type AnchorResult,
  type AnchorStep,
  type AnchorVolume,
  equalHeads,
} from './anchor.ts';

/** How long one advance waits for another process's; each takes milliseconds. */
const LOCK_TIMEOUT_MS = 5000;
const LOCK_POLL_MS = 10;
const HEAD_MAX_BYTES = 1024;

const HeadSchema = v.strictObject({
  version: v.literal(1),
  epoch: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  seq: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  commitHash: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
});

/**
 * Heads in a folder, a file each. Durable, and no protection at all: whoever can write the folder can turn every volume
 * back. For development only, which `capabilities` makes everybody say who uses it.
 */
export class FileAnchor implements Anchor {
  readonly capabilities = { kind: 'file', production: false, maxLeaves: Number.MAX_SAFE_INTEGER } as const;
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async create(volume: AnchorVolume, first: AnchorHead): Promise<'created' | 'exists'> {
    await this.#reach(() => mkdir(this.#folder, { recursive: true, mode: 0o700 }));
    return this.#locked(volume, async () => {
      if ((await this.#load(volume)) !== undefined) return 'exists';
      await this.#store(volume, first);
      return 'created';
    });
  }

  async read(volume: AnchorVolume, options?: AnchorOptions): Promise<AnchorHead | undefined> {
    options?.signal?.throwIfAborted();
    return this.#load(volume);
  }

  async advance(volume: AnchorVolume, step: AnchorStep): Promise<AnchorResult> {
    const last = step.leaves.at(-1);
    if (last === undefined) throw new RangeError('an advance along no leaves');
    return this.#locked(volume, async () => {
      const head = await this.#load(volume);
      if (head !== undefined && equalHeads(head, last)) return { outcome: 'advanced' };
      if (head === undefined || !equalHeads(head, step.from)) return { outcome: 'conflict', head };
      await this.#store(volume, last);
      return { outcome: 'advanced' };
    });
  }

  #path(volume: AnchorVolume): string {
    return join(this.#folder, `${volume.anchorId.toString('hex')}.json`);
  }

  async #load(volume: AnchorVolume): Promise<AnchorHead | undefined> {
    const path = this.#path(volume);
    const text = await this.#reach(() =>
      readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined;
        throw error;
      }),
    );
    if (text === undefined) return undefined;
    const parsed = text.length > HEAD_MAX_BYTES ? undefined : v.safeParse(HeadSchema, parseJson(text));
    if (!parsed?.success) throw new PosternError('ERR_ANCHOR_CORRUPT', `${path} holds no head`);
    const { epoch, seq, commitHash } = parsed.output;
    return { epoch, seq, commitHash: Buffer.from(commitHash, 'hex') };
  }

  /** The new head is on the disk, name and all, before this resolves. */
  async #store(volume: AnchorVolume, head: AnchorHead): Promise<void> {
    const path = this.#path(volume);
    const { epoch, seq } = head;
    const text = JSON.stringify({ version: 1, epoch, seq, commitHash: head.commitHash.toString('hex') });
    await this.#reach(async () => {
      const file = await open(`${path}.new`, 'w', 0o600);
      await writeAndSync(file, text);
      await rename(`${path}.new`, path);
      const folder = await open(this.#folder, 'r');
      await folder.sync().finally(() => folder.close());
    });
  }

  /** One process at a time; a lock whose holder died is taken over. */
  async #locked<T>(volume: AnchorVolume, work: () => Promise<T>): Promise<T> {
    const path = `${this.#path(volume)}.lock`;
    const endMs = performance.now() + LOCK_TIMEOUT_MS;
    while (!(await this.#reach(() => takeLock(path)))) {
      if (performance.now() > endMs) {
        throw new PosternError('ERR_ANCHOR_UNAVAILABLE', `${path} is held by another process`);
      }
      await delay(LOCK_POLL_MS);
    }
    try {
      return await work();
    } finally {
      await unlink(path);
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

async function writeAndSync(file: FileHandle, text: string): Promise<void> {
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** The lock appears with its holder's number in it, or not at all: a process may die at any moment. */
async function takeLock(path: string): Promise<boolean> {
  const draft = `${path}.${process.pid}.${randomBytes(6).toString('hex')}`;
  await writeFile(draft, String(process.pid), { mode: 0o600 });
  try {
    await link(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    await unlink(draft);
  }
  const holder = Number.parseInt(await readFile(path, 'utf8').catch(() => ''), 10);
  if (Number.isSafeInteger(holder) && !isAlive(holder)) await unlink(path).catch(() => undefined);
  return false;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Malformed is one of the things that the schema's caller reports.
    return undefined;
  }
}
