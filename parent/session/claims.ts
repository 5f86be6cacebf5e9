import { createHash } from 'node:crypto';
import { lstat, mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { PosternError } from '../../shared/errors.ts';

/** A claim takes some 200 bytes; more is not a claim. */
const CLAIM_MAX_BYTES = 4096;
const OTHERS_MAY_WRITE = 0o022;

const claimSchema = v.strictObject({
  version: v.literal(1),
  identity: v.string(),
  keySha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
});

/** What is remembered of a session key: enough to know its holder again, not enough to prove it. */
export function hashKey(key: Buffer): Buffer {
  return createHash('sha256').update('postern/1/claim\0').update(key).digest();
}

/** Remembers which key a guest registered, across restarts of the parent. One small file for each guest. */
export interface Claims {
  /** `undefined`: this guest never registered here, or was released. @throws PosternError ERR_SESSION_STATE */
  recall(identity: string): Promise<Buffer | undefined>;
  /** Durable when it resolves. @throws PosternError ERR_SESSION_STATE */
  remember(identity: string, keyHash: Buffer): Promise<void>;
  /** Idempotent. @throws PosternError ERR_SESSION_STATE */
  forget(identity: string): Promise<void>;
}

/**
 * Claims in a directory of files that only this user can write.
 * @throws PosternError ERR_SESSION_STATE when it cannot be made, or others could plant a claim in it.
 */
export async function openClaims(directory: string): Promise<Claims> {
  const what = `state directory ${directory}`;
  await guarded(what, () => mkdir(directory, { recursive: true, mode: 0o700 }));
  const { mode } = await guarded(what, () => stat(directory));
  if ((mode & OTHERS_MAY_WRITE) !== 0) {
    throw new PosternError('ERR_SESSION_STATE', `${what}: others may write to it; chmod 700 ${directory}`);
  }
  return new ClaimDirectory(directory);
}

class ClaimDirectory implements Claims {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async recall(identity: string): Promise<Buffer | undefined> {
    const file = this.#fileOf(identity);
    return guarded(`${file} (${identity})`, async () => {
      const text = await readSmall(file);
      if (text === undefined) return undefined;
      const claim = v.parse(claimSchema, JSON.parse(text));
      if (claim.identity !== identity) throw new Error(`it is the claim of ${claim.identity}`);
      return Buffer.from(claim.keySha256, 'hex');
    });
  }

  async remember(identity: string, keyHash: Buffer): Promise<void> {
    const file = this.#fileOf(identity);
    const text = `${JSON.stringify({ version: 1, identity, keySha256: keyHash.toString('hex') })}\n`;
    await guarded(`${file} (${identity})`, async () => {
      // One writer: the slot of the guest lets one claim through at a time. What is there was left by a crash.
      const temporary = `${file}.new`;
      await rm(temporary, { force: true });
      const handle = await open(temporary, 'wx', 0o600);
      try {
        await handle.writeFile(text);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(temporary, file);
      await this.#sync();
    });
  }

  async forget(identity: string): Promise<void> {
    const file = this.#fileOf(identity);
    await guarded(`${file} (${identity})`, async () => {
      await rm(file, { force: true });
      await this.#sync();
    });
  }

  /** Readable for a CID; for a path, whose characters a file name cannot hold, its hash. */
  #fileOf(identity: string): string {
    const cid = /^cid:(\d+)$/.exec(identity)?.[1];
    const name =
      cid === undefined ? `socket-${createHash('sha256').update(identity).digest('hex')}` : `cid-${cid}`;
    return join(this.#directory, `${name}.json`);
  }

  async #sync(): Promise<void> {
    const handle = await open(this.#directory, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }
}

/** Only "no such file" means that there is no claim; whatever else cannot be read stays an error. */
async function readSmall(file: string): Promise<string | undefined> {
  try {
    const { size } = await lstat(file);
    if (size > CLAIM_MAX_BYTES) throw new Error(`${size} bytes, over ${CLAIM_MAX_BYTES}`);
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

async function guarded<T>(what: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new PosternError('ERR_SESSION_STATE', `${what}: ${reason}`, { cause });
  }
}
