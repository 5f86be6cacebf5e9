import { link, lstat, rename, unlink } from 'node:fs/promises';
import { PosternError } from '../errors.ts';
import { acceptOn } from './accept.ts';
import type { Peer, TransportAddress } from './address.ts';
import { withinDeadline } from './deadline.ts';
import { errnoOf, transportFailure } from './failure.ts';
import type { PipeHandle } from './native/handle.ts';
import {
  AF_UNIX,
  bindSocket,
  closeDescriptor,
  listenSocket,
  openSocket,
  setSocketMode,
  startConnect,
} from './native/libc.ts';
import { connectSocket } from './socket.ts';
import { streamOver } from './stream.ts';
import type { ConnectOptions, Listener, OnStream, Stream } from './transport.ts';

type UnixAddress = Extract<TransportAddress, { kind: 'unix' }>;

/** Only the user that runs Postern may connect; whoever shares a socket with others widens its mode himself. */
export const SOCKET_FILE_MODE = 0o600;

export async function connectUnix(address: UnixAddress, options: ConnectOptions): Promise<Stream> {
  const handle = await withinDeadline(address, options, (signal) => connectPath(address.path, signal)).catch(
    (error) => {
      throw transportFailure(error, address);
    },
  );
  return streamOver(handle, { kind: 'unix', path: address.path });
}

/** @throws ErrnoError, or the signal's reason */
export function connectPath(path: string, signal: AbortSignal): Promise<PipeHandle> {
  return connectSocket(AF_UNIX, unixAddress(path), signal);
}

export function listenUnix(address: UnixAddress, onStream: OnStream): Promise<Listener> {
  return listenPath(address.path, address, { kind: 'unix', path: address.path }, onStream);
}

/**
 * Listens at a path. A socket file that a dead process left is replaced, once a connection proved that nobody
 * listens; a live one, or a file that is no socket, is left alone (ERR_TRANSPORT_IN_USE).
 */
export async function listenPath(
  path: string,
  address: TransportAddress,
  peer: Peer,
  onStream: OnStream,
): Promise<Listener> {
  const fd = await openListener(path, address);
  try {
    const file = await lstat(path);
    const listener = acceptOn(fd, address, (handle) => streamOver(handle, peer), onStream);
    let closed: Promise<void> | undefined;
    const close = async () => {
      await removeOwn(path, file.ino);
      closeDescriptor(fd);
      await listener.close();
    };
    return {
      address,
      close: () => {
        closed ??= close();
        return closed;
      },
    };
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

async function openListener(path: string, address: TransportAddress): Promise<number> {
  const fd = openSocket(AF_UNIX);
  try {
    setSocketMode(fd, SOCKET_FILE_MODE);
    await bindPath(fd, path, address);
    listenSocket(fd, 1);
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw transportFailure(error, address);
  }
}

async function bindPath(fd: number, path: string, address: TransportAddress): Promise<void> {
  try {
    return bindSocket(fd, unixAddress(path));
  } catch (error) {
    if (errnoOf(error) !== 'EADDRINUSE') throw error;
  }
  await removeStale(path, address);
  bindSocket(fd, unixAddress(path));
}

/**
 * Moves the dead socket file away before it is removed, and looks at what was moved: when two processes find the same dead
 * file, the slower one moves the live file of the faster, and puts it back.
 */
async function removeStale(path: string, address: TransportAddress): Promise<void> {
  const inUse = (why: string) => new PosternError('ERR_TRANSPORT_IN_USE', `${path}: ${why}`);
  const file = await lstat(path);
  if (!file.isSocket()) throw inUse('the file is not a socket, and is left alone');
  if (isAlive(path)) throw inUse(`another process listens (${address.kind})`);
  const aside = `${path}.stale-${process.pid}`;
  await rename(path, aside);
  const moved = await lstat(aside);
  if (moved.ino !== file.ino) {
    await link(aside, path);
    await unlink(aside);
    throw inUse('another process took it over');
  }
  await unlink(aside);
}

/** Only a refusal proves that nobody listens; a full backlog, or no permission, is somebody. */
function isAlive(path: string): boolean {
  const fd = openSocket(AF_UNIX);
  try {
    startConnect(fd, unixAddress(path));
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

/** sockaddr_un: family, then the path with its terminating zero. */
function unixAddress(path: string): Buffer {
  const family = Buffer.alloc(2);
  family.writeUInt16LE(AF_UNIX);
  return Buffer.concat([family, Buffer.from(`${path}\0`)]);
}
