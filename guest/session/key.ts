import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, link, mkdir, open, stat, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PosternError } from '../../shared/errors.ts';
import { KEY_BYTES } from '../../shared/wire/header.ts';

/** Bits of a file mode that let somebody other than the owner in. */
const OTHERS = 0o077;
const OTHERS_WRITE = 0o022;

/**
 * The session key (KEY_BYTES), made on first use in `file`: mode 0600, in a folder that only this user or root can
 * write to. An agent that starts again finds the same key, which is how the parent knows it.
 * @throws PosternError ERR_SESSION_KEY when the file or its folder is open to others, or the file is no key.
 */
export async function loadSessionKey(file: string): Promise<Buffer> {
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    await checkFolder(dirname(file));
    return (await readKey(file)) ?? (await createKey(file));
  } catch (error) {
    if (error instanceof PosternError || !isSystemError(error)) throw error;
    throw new PosternError('ERR_SESSION_KEY', `${file}: ${error.message}`, { cause: error });
  }
}

async function checkFolder(folder: string): Promise<void> {
  const { uid, mode } = await stat(folder);
  if (uid !== 0 && uid !== process.geteuid?.()) throw unsafe(folder, `belongs to user ${uid}`);
  // A sticky folder such as /tmp is refused too: another user could have put the name there first.
  if ((mode & OTHERS_WRITE) !== 0) throw unsafe(folder, `others may write to it (mode ${octal(mode)})`);
}

async function readKey(file: string): Promise<Buffer | undefined> {
  let handle: FileHandle;
  try {
    // NOFOLLOW: a link could lead to a file of somebody else's choice. NONBLOCK: a FIFO must not hang the start.
    handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const { uid, mode, size } = await assertRegular(handle, file);
    if (uid !== process.geteuid?.()) throw unsafe(file, `belongs to user ${uid}`);
    if ((mode & OTHERS) !== 0) throw unsafe(file, `others may open it (mode ${octal(mode)})`);
    // Never made anew: the parent knows the old one, and a damaged file is for a person to look at.
    if (size !== KEY_BYTES) throw unsafe(file, `is ${size} bytes, a key is ${KEY_BYTES}`);
    const key = Buffer.alloc(KEY_BYTES);
    await handle.read(key, 0, KEY_BYTES, 0);
    return key;
  } finally {
    await handle.close();
  }
}

async function assertRegular(handle: FileHandle, file: string) {
  const found = await handle.stat();
  if (!found.isFile()) throw unsafe(file, 'is no regular file');
  return found;
}

/** Written under another name and linked into place, so that no moment shows half a key. */
async function createKey(file: string): Promise<Buffer> {
  const key = randomBytes(KEY_BYTES);
  const draft = `${file}.${randomBytes(8).toString('hex')}`;
  const handle = await open(draft, 'wx', 0o600);
  try {
    await handle.writeFile(key);
    await handle.sync();
    await link(draft, file);
    return key;
  } catch (error) {
    // Another agent was first; its key is the one.
    const existing = isSystemError(error) && error.code === 'EEXIST' ? await readKey(file) : undefined;
    if (existing === undefined) throw error;
    return existing;
  } finally {
    await handle.close();
    await unlink(draft);
  }
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error;
}

function octal(mode: number): string {
  return `0${(mode & 0o7777).toString(8)}`;
}

function unsafe(path: string, what: string): PosternError {
  return new PosternError(
    'ERR_SESSION_KEY',
    `${path} ${what}; only the agent's user may hold the session key`,
  );
}
