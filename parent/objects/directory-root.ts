import { randomBytes } from 'node:crypto';
import { link, lstat, mkdir, open, readdir, realpath, stat, unlink } from 'node:fs/promises';
import { PosternError } from '../../shared/errors.ts';
import { errnoOf } from './folders.ts';

/**
 * The folder's real path.
 * @throws PosternError ERR_STORE_UNSUITABLE
 */
export async function checkRoot(path: string): Promise<string> {
  let root: string;
  try {
    root = await realpath(path);
  } catch (error) {
    // It is not made here: a disk that is not mounted must not look like a store that is empty.
    throw unsuitable(
      `${path}: create the folder first (mkdir -m 700), on the disk that is to hold it`,
      error,
    );
  }
  const status = await stat(root);
  if (!status.isDirectory()) throw unsuitable(`${path}: not a folder`);
  if ((status.mode & 0o002) !== 0) throw unsuitable(`${path}: everybody may write to it (chmod o-w)`);
  return root;
}

/**
 * Removes what dead processes left in it, and tries in it what the store depends on.
 * @throws PosternError ERR_STORE_UNSUITABLE
 */
export async function prepareTemporaryFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { mode: 0o700 }).catch((error: unknown) => {
      if (errnoOf(error) !== 'EEXIST') throw error;
    });
    if ((await realpath(folder)) !== folder) throw unsuitable(`${folder}: a symbolic link`);
    for (const name of await readdir(folder)) {
      if (isLeftOver(name)) await unlink(`${folder}/${name}`);
    }
    await tryFileSystem(folder);
  } catch (error) {
    if (error instanceof PosternError) throw error;
    throw unsuitable(`${folder}: ${errnoOf(error) ?? String(error)}`, error);
  }
}

/** Temporary files begin with the id of their process. One of this id cannot be this process's: it has made none yet. */
function isLeftOver(name: string): boolean {
  const pid = Number.parseInt(name, 10);
  if (!(pid > 0) || pid === process.pid) return true;
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    // EPERM: somebody else's process lives under that id.
    return errnoOf(error) === 'ESRCH';
  }
}

async function tryFileSystem(folder: string): Promise<void> {
  const stem = `${folder}/${process.pid}-probe-${randomBytes(6).toString('hex')}`;
  const handle = await open(`${stem}-a`, 'wx', 0o600);
  await handle.sync();
  await handle.close();
  try {
    if ((await sizeOf(`${stem}-A`)) !== undefined) throw unsuitable(`${folder}: a file system without case`);
    const first = await linkOnce(`${stem}-a`, `${stem}-b`);
    const second = await linkOnce(`${stem}-a`, `${stem}-b`);
    if (first !== 'created' || second !== 'exists')
      throw unsuitable(`${folder}: link() replaces what is there`);
  } finally {
    for (const end of ['-a', '-b']) {
      await unlink(stem + end).catch(() => {
        // Where links are not possible there is no second name.
      });
    }
  }
}

function unsuitable(message: string, cause?: unknown): PosternError {
  return new PosternError('ERR_STORE_UNSUITABLE', message, { cause });
}

/** Gives a file a second name; `exists` where the name is taken. */
export async function linkOnce(temporary: string, file: string): Promise<'created' | 'exists'> {
  try {
    await link(temporary, file);
    return 'created';
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return 'exists';
    throw error;
  }
}

/** Of a plain file; undefined where there is none, or something else. */
export async function sizeOf(file: string): Promise<number | undefined> {
  try {
    const status = await lstat(file);
    return status.isFile() ? status.size : undefined;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
