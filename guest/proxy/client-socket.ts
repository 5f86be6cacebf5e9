import type { Socket } from 'node:net';
import { resetSocket } from '../../shared/flow/splice.ts';
import type { Gate, OpenFlow } from '../flow/gate.ts';

/** How long a refused client may take to read its answer and close. */
const CLOSE_TIMEOUT_MS = 2_000;

/**
 * Tells the client that its flow is open, checks its first bytes where the rule wants that, and lets the data go.
 * @throws PosternError as Gate.admit does; the client is reset then.
 */
export async function joinClient(
  gate: Gate,
  socket: Socket,
  open: OpenFlow,
  greeting: Buffer,
): Promise<void> {
  if (socket.destroyed) return open.tunnel.cancel();
  if (greeting.length > 0) socket.write(greeting);
  try {
    await gate.admit(socket, open);
  } catch (error) {
    resetSocket(socket);
    throw error;
  }
  open.tunnel.splice(socket);
}

/** Sends the last bytes and closes; what the client still sends is thrown away, lest a reset overtakes the answer. */
export function dismissClient(socket: Socket, bytes: Buffer): void {
  if (socket.destroyed) return;
  const timer = setTimeout(() => socket.destroy(), CLOSE_TIMEOUT_MS);
  socket.once('close', () => clearTimeout(timer));
  socket.resume();
  socket.end(bytes);
}

/** Runs `work` with a signal that aborts when the client's socket closes meanwhile. */
export async function whileConnected<T>(socket: Socket, work: (gone: AbortSignal) => Promise<T>): Promise<T> {
  const gone = new AbortController();
  const onClose = (): void => gone.abort();
  socket.once('close', onClose);
  if (socket.destroyed) gone.abort();
  try {
    return await work(gone.signal);
  } finally {
    socket.off('close', onClose);
  }
}
