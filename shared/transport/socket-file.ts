import { closeSync, constants, lstatSync, openSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PosternError } from '../errors.ts';
import { type BoundListener, LISTEN_BACKLOG } from './accept.ts';
import { errnoOf } from './failure.ts';
import {
  AF_UNIX,
  bindSocket,
  closeDescriptor,
  listenSocket,
  openSocket,
  setSocketMode,
  startConnect,
  tryLock,
} from './native/libc.ts';

/** Only the user that runs Postern may connect; whoever shares a socket with others widens its mode himself. */
export const SOCKET_FILE_MODE = 0o600;

/** Another process holds the lock for two system calls; one that holds it this long has been stopped. */
const LOCK_TIMEOUT_MS = 5000;
const LOCK_RETRY_MS = 2;

/**
 * Listens at a path. A socket file that a dead process left is replaced, once a connection proved that nobody
 * listens; a live one, or a file that is no socket, is left alone.
 * @throws PosternError ERR_TRANSPORT_IN_USE, or ErrnoError
 */
export async function bindSocketFile(path: string): Promise<BoundListener> {
  const fd = openSocket(AF_UNIX);
  try {
    setSocketMode(fd, SOCKET_FILE_MODE);
    const inode = await withFolderLock(path, () => bindFresh(fd, path));
    const release = async () => {
      closeDescriptor(fd);
      removeOwn(path, inode);
    };
    return { fd, release };
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/**
 * A socket that is bound and does not listen yet, and a dead one, look the same to whoever connects. So all that bind in a
 * folder take turns, by a lock on the folder itself that ends with its holder and leaves no file.
 */
async function withFolderLock<T>(path: string, run: () => T): Promise<T> {
  const folder = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    for (const giveUpAt = performance.now() + LOCK_TIMEOUT_MS; !tryLock(folder); await sleep(LOCK_RETRY_MS)) {
      if (performance.now() > giveUpAt) throw inUse(path, 'another process holds the lock on its folder');
    }
    return run();
  } finally {
    closeSync(folder);
  }
}

/** Binds and listens, in place of a dead file if there is one. The inode of the new file. */
function bindFresh(fd: number, path: string): number {
  const address = unixSocketAddress(path);
  if (isDead(path)) unlinkSync(path);
  bindSocket(fd, address);
  listenSocket(fd, LISTEN_BACKLOG);
  return lstatSync(path).ino;
}

function isDead(path: string): boolean {
  const file = lstatSync(path, { throwIfNoEntry: false });
  if (file === undefined) return false;
  if (!file.isSocket()) throw inUse(path, 'this file is not a socket, and is left alone');
  if (isAlive(path)) throw inUse(path, 'another process listens there');
  return true;
}

/** Only a refusal proves that nobody listens: a full backlog, or a missing permission, is somebody. */
function isAlive(path: string): boolean {
  const fd = openSocket(AF_UNIX);
  try {
    startConnect(fd, unixSocketAddress(path));
    return true;
  } catch (error) {
    return errnoOf(error) !== 'ECONNREFUSED';
  } finally {
    closeDescriptor(fd);
  }
}

function removeOwn(path: string, inode: number): void {
  // Somebody may have cleaned up before us, or taken the path since.
  if (lstatSync(path, { throwIfNoEntry: false })?.ino === inode) unlinkSync(path);
}

function inUse(path: string, why: string): PosternError {
  return new PosternError('ERR_TRANSPORT_IN_USE', `${path}: ${why}`);
}

/** sockaddr_un: the family, then the path with its terminating zero. */
export function unixSocketAddress(path: string): Buffer {
  const family = Buffer.alloc(2);
  family.writeUInt16LE(AF_UNIX);
  return Buffer.concat([family, Buffer.from(`${path}\0`)]);
}
