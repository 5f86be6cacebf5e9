import { createServer } from 'node:net';
import { PosternError } from '../../errors.ts';
import { closeDescriptor, duplicate } from './libc.ts';

/**
 * What Postern uses of libuv's pipe handle, which Node does not document. A pipe handle adopts a stream socket of
 * any family (`net.Socket({fd})` takes only the families it knows), and from then on it is an ordinary socket.
 */
export interface PipeHandle {
  readonly fd: number;
  onconnection: ((status: number, client: PipeHandle | undefined) => void) | null;
  open(fd: number): number;
  listen(backlog: number): number;
  close(done?: () => void): void;
  ref(): void;
  unref(): void;
}

type PipeClass = new (type: number) => PipeHandle;

/** `PipeConstants` of Node's `pipe_wrap`. */
const PIPE_SOCKET = 0;
const PIPE_SERVER = 1;

let pipeClass: PipeClass | undefined;

/** The class is the constructor of a unix listener's handle: found without `process.binding`. */
function findPipeClass(): PipeClass {
  if (pipeClass !== undefined) return pipeClass;
  // The abstract name leaves no file; `exclusive` keeps a cluster worker from asking its primary for the handle.
  const server = createServer();
  server.on('error', () => undefined);
  server.listen({ path: `\0postern-probe-${process.pid}-${performance.now()}`, exclusive: true });
  const handle: unknown = Reflect.get(server, '_handle');
  server.close();
  const found: unknown = typeof handle === 'object' && handle !== null ? handle.constructor : undefined;
  if (typeof found !== 'function' || found.name !== 'Pipe')
    throw unsupported('no pipe handle class was found');
  pipeClass = found as PipeClass;
  return pipeClass;
}

function newHandle(type: number, fd: number): PipeHandle {
  const handle = new (findPipeClass())(type);
  if (typeof handle.open !== 'function') throw unsupported('the pipe handle cannot open a descriptor');
  const status = handle.open(fd);
  if (status !== 0) throw unsupported(`the pipe handle refused the descriptor (${status})`);
  return handle;
}

/** The handle owns `fd` from here on; when this throws, `fd` is closed. */
export function adoptStream(fd: number): PipeHandle {
  try {
    return newHandle(PIPE_SOCKET, fd);
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/** A handle that accepts on a duplicate of `fd`, which stays the caller's. */
export function adoptListener(
  fd: number,
  backlog: number,
  onHandle: (client: PipeHandle) => void,
): PipeHandle {
  const copy = duplicate(fd);
  let handle: PipeHandle;
  try {
    handle = newHandle(PIPE_SERVER, copy);
  } catch (error) {
    closeDescriptor(copy);
    throw error;
  }
  handle.onconnection = (status, client) => {
    // libuv sheds load by itself when descriptors run out (it accepts and closes), so nothing spins here.
    if (status === 0 && client !== undefined) onHandle(client);
  };
  const status = handle.listen(backlog);
  if (status === 0) return handle;
  handle.close();
  throw unsupported(`the pipe handle does not listen (${status})`);
}

function unsupported(what: string): PosternError {
  const text = `Node ${process.version} does not carry foreign sockets as Postern needs it: ${what}`;
  return new PosternError('ERR_TRANSPORT_UNSUPPORTED', text);
}
