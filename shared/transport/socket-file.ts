import { link, lstat, rename, unlink } from 'node:fs/promises';
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
} from './native/libc.ts';

/** Only the user that runs Postern may connect; whoever shares a socket with others widens its mode himself. */
export const SOCKET_FILE_MODE = 0o600;

/**
 * Listens at a path. A socket file that a dead process left is replaced, once a connection proved that nobody
 * listens; a live one, or a file that is no socket, is left alone.
 * @throws PosternError ERR_TRANSPORT_IN_USE, or ErrnoError
 */
export async function bindSocketFile(path: string): Promise<BoundListener> {
  const fd = openSocket(AF_UNIX);
  try {
    setSocketMode(fd, SOCKET_FILE_MODE);
    await bindFresh(fd, path);
    listenSocket(fd, LISTEN_BACKLOG);
    const { ino } = await lstat(path);
    const release = async () => {
      closeDescriptor(fd);
      await removeOwn(path, ino);
    };
    return { fd, release };
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

async function bindFresh(fd: number, path: string): Promise<void> {
  const address = unixSocketAddress(path);
  try {
    return bindSocket(fd, address);
  } catch (error) {
    if (errnoOf(error) !== 'EADDRINUSE') throw error;
  }
  await removeStale(path);
  bindSocket(fd, address);
}

/**
 * Moves the dead file away before it removes it, and looks at what it moved: when two processes find the same dead
 * file, the slower one has moved the live file of the faster, and puts it back.
 */
async function removeStale(path: string): Promise<void> {
  const file = await lstat(path);
  if (!file.isSocket()) throw inUse(path, 'this file is not a socket, and is left alone');
  if (isAlive(path)) throw inUse(path, 'another process listens there');
  const aside = `${path}.stale-${process.pid}`;
  await rename(path, aside);
  const moved = await lstat(aside);
  if (moved.ino !== file.ino) await link(aside, path);
  await unlink(aside);
  if (moved.ino !== file.ino) throw inUse(path, 'another process has just begun to listen there');
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

async function removeOwn(path: string, inode: number): Promise<void> {
  try {
    if ((await lstat(path)).ino === inode) await unlink(path);
  } catch (error) {
    // Somebody cleaned up before us: the address is free, which is all that was wanted.
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
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
