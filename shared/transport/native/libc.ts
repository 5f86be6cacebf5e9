import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';
import { PosternError } from '../../errors.ts';

/** A failed call into libc: the symbolic errno, as Node names it in `error.code`. */
export class ErrnoError extends Error {
  override readonly name = 'ErrnoError';
  readonly code: string;

  constructor(call: string, code: string) {
    super(`${call}: ${code}`);
    this.code = code;
  }
}

export const AF_UNIX = 1;
export const AF_VSOCK = 40;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_ERROR = 4;
const F_DUPFD_CLOEXEC = 1030;
const LOCK_EX_NB = 2 | 4;
/** sockaddr_storage of <sys/socket.h>: holds an address of any family. */
const ADDRESS_MAX_BYTES = 128;

type Call = (...args: (number | Buffer | Int32Array)[]) => number;

interface Libc {
  readonly socket: Call;
  readonly socketpair: Call;
  readonly bind: Call;
  readonly listen: Call;
  readonly connect: Call;
  readonly getpeername: Call;
  readonly getsockname: Call;
  readonly getsockopt: Call;
  readonly fchmod: Call;
  readonly fcntl: Call;
  readonly flock: Call;
  readonly close: Call;
}

let loaded: Libc | undefined;

/** The process already has libc mapped (glibc or musl), so nothing is looked up by file name. */
function libc(): Libc {
  loaded ??= loadLibc();
  return loaded;
}

function loadLibc(): Libc {
  try {
    const library = koffi.load(null);
    return {
      socket: library.func('int socket(int domain, int type, int protocol)'),
      socketpair: library.func('int socketpair(int domain, int type, int protocol, _Out_ int *fds)'),
      bind: library.func('int bind(int fd, void *address, uint32_t size)'),
      listen: library.func('int listen(int fd, int backlog)'),
      connect: library.func('int connect(int fd, void *address, uint32_t size)'),
      getpeername: library.func('int getpeername(int fd, void *address, void *size)'),
      getsockname: library.func('int getsockname(int fd, void *address, void *size)'),
      getsockopt: library.func('int getsockopt(int fd, int level, int name, void *value, void *size)'),
      fchmod: library.func('int fchmod(int fd, uint32_t mode)'),
      fcntl: library.func('int fcntl(int fd, int command, int argument)'),
      flock: library.func('int flock(int fd, int operation)'),
      close: library.func('int close(int fd)'),
    };
  } catch (cause) {
    throw new PosternError('ERR_TRANSPORT_UNSUPPORTED', 'koffi cannot call libc on this system', { cause });
  }
}

function checked(call: string, result: number): number {
  if (result >= 0) return result;
  const number = koffi.errno();
  throw new ErrnoError(call, getSystemErrorName(-number));
}

/** A new non-blocking stream socket, closed on exec. */
export function openSocket(family: number): number {
  return checked('socket', libc().socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

/** Two connected unix sockets, non-blocking and closed on exec. */
export function openSocketPair(): [number, number] {
  const fds = new Int32Array(2);
  checked('socketpair', libc().socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds));
  return [fds[0] ?? -1, fds[1] ?? -1];
}

export function bindSocket(fd: number, address: Buffer): void {
  checked('bind', libc().bind(fd, address, address.length));
}

export function listenSocket(fd: number, backlog: number): void {
  checked('listen', libc().listen(fd, backlog));
}

/** Starts a connection. False: still on its way, the descriptor turns writable when it is decided. */
export function startConnect(fd: number, address: Buffer): boolean {
  const result = libc().connect(fd, address, address.length);
  if (result < 0 && koffi.errno() === koffi.os.errno['EINPROGRESS']) return false;
  checked('connect', result);
  return true;
}

/** How a connection that was on its way ended. @throws ErrnoError when it failed. */
export function finishConnect(fd: number): void {
  const value = Buffer.alloc(4);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(value.length);
  checked('getsockopt', libc().getsockopt(fd, SOL_SOCKET, SO_ERROR, value, size));
  const number = value.readInt32LE();
  if (number !== 0) throw new ErrnoError('connect', getSystemErrorName(-number));
}

export function peerAddress(fd: number): Buffer {
  return readAddress('getpeername', fd);
}

export function localAddress(fd: number): Buffer {
  return readAddress('getsockname', fd);
}

function readAddress(call: 'getpeername' | 'getsockname', fd: number): Buffer {
  const address = Buffer.alloc(ADDRESS_MAX_BYTES);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(address.length);
  checked(call, libc()[call](fd, address, size));
  return address.subarray(0, Math.min(size.readUInt32LE(), address.length));
}

/** On Linux the socket file that `bind` makes takes its mode from the unbound descriptor, less the umask. */
export function setSocketMode(fd: number, mode: number): void {
  checked('fchmod', libc().fchmod(fd, mode));
}

export function duplicate(fd: number): number {
  return checked('fcntl', libc().fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

/** Takes the advisory lock on a file or folder; false when somebody else has it. It ends with the descriptor. */
export function tryLock(fd: number): boolean {
  const result = libc().flock(fd, LOCK_EX_NB);
  if (result < 0 && koffi.errno() === koffi.os.errno['EWOULDBLOCK']) return false;
  checked('flock', result);
  return true;
}

const M_TRIM_THRESHOLD = -1;
const M_MMAP_THRESHOLD = -3;
/** glibc's own first threshold, which it raises with every larger block that is freed, up to 32 MiB. */
const LARGE_BLOCK_BYTES = 128 * 1024;

/**
 * Keeps glibc at giving large blocks back to the system when they are freed: left alone it learns to keep them, and they
 * lie between small ones for good (measured: 20 MiB of a volume's process). Other C libraries do so anyway, or have no say.
 *
 * @returns gives back what lies free between blocks in use; takes a few milliseconds
 */
export function returnFreedMemory(): () => void {
  let mallopt: Call;
  let malloc_trim: Call;
  try {
    const library = koffi.load(null);
    mallopt = library.func('int mallopt(int parameter, int value)');
    malloc_trim = library.func('int malloc_trim(size_t pad)');
  } catch {
    // musl has neither.
    return () => {};
  }
  mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);
  mallopt(M_TRIM_THRESHOLD, LARGE_BLOCK_BYTES);
  return () => malloc_trim(0);
}

export function closeDescriptor(fd: number): void {
  checked('close', libc().close(fd));
}
