import type { Socket } from 'node:net';
import type { Stream } from '../transport/transport.ts';
import type { Flow, FlowEnd, FlowOptions, StartFlow } from './flow.ts';
import { Pump } from './pump.ts';

/** How long a flow that was reset here waits for the peer to close the tunnel stream after our RESET. */
export const RESET_LINGER_MS = 5_000;

/** See flow.ts. */
export const startFlow: StartFlow = (local, tunnel, options) => new Splice(local, tunnel, options);

class Splice implements Flow {
  readonly #local: Pump;
  readonly #tunnel: Pump;
  readonly #options: FlowOptions;
  #end: FlowEnd = 'closed';
  #openCount = 2;
  #linger: NodeJS.Timeout | undefined;

  constructor(local: Socket, tunnel: Stream, options: FlowOptions) {
    this.#options = options;
    const tunnelMaxWriteBytes = maxWriteBytes(tunnel);
    this.#local = new Pump(local, options.limiter);
    this.#tunnel = new Pump(tunnel, options.limiter);
    const localSocket = this.#local.socket;
    const tunnelSocket = this.#tunnel.socket;
    localSocket.on('end', () => {
      tunnelSocket.end();
      this.#local.watchHalfClosed();
    });
    tunnelSocket.on('end', () => this.#tunnelEnded());
    localSocket.on('error', () => this.#localReset());
    tunnelSocket.on('error', () => this.#finish('lost'));
    localSocket.on('close', () => this.#closed());
    tunnelSocket.on('close', () => this.#closed());
    this.#local.start(tunnelSocket, tunnelMaxWriteBytes);
    this.#tunnel.start(localSocket, Number.POSITIVE_INFINITY);
  }

  get sentBytes(): number {
    return this.#local.bytes;
  }

  get receivedBytes(): number {
    return this.#tunnel.bytes;
  }

  abort(end: 'reset-peer' | 'lost'): void {
    this.#finish(end);
  }

  #tunnelEnded(): void {
    if (this.#end === 'closed') this.#local.socket.end();
    else this.#tunnel.socket.destroy();
  }

  /**
   * The local socket was reset. The tunnel knows no reset, so the peer is told on the control stream; the tunnel
   * stays open until the peer closes it, lest it takes our closing for a proper end.
   */
  #localReset(): void {
    if (this.#end !== 'closed') return;
    this.#end = 'reset-local';
    this.#options.sendReset();
    if (this.#tunnel.socket.destroyed) return;
    this.#linger = setTimeout(() => this.#tunnel.socket.destroy(), RESET_LINGER_MS);
    this.#tunnel.discard();
  }

  #finish(end: 'reset-peer' | 'lost'): void {
    if (this.#end === 'closed') this.#end = end;
    resetSocket(this.#local.socket);
    this.#tunnel.socket.destroy();
  }

  #closed(): void {
    this.#openCount -= 1;
    if (this.#openCount > 0) return;
    clearTimeout(this.#linger);
    this.#local.release();
    this.#tunnel.release();
    this.#options.onDone({ end: this.#end, sentBytes: this.sentBytes, receivedBytes: this.receivedBytes });
  }
}

function maxWriteBytes(tunnel: Stream): number {
  const { kind } = tunnel.peer;
  return kind === 'vsock' || kind === 'hybrid' ? 31 * 1024 : Number.POSITIVE_INFINITY;
}

/** RST towards the application where the socket is TCP; a unix socket (in tests) has only close. */
export function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  const closing = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0;
  if (socket.remoteFamily === undefined) socket.destroy();
  // libuv refuses to reset a socket whose shutdown is under way, and Node then never closes it. It takes one turn.
  else if (closing) socket.once('finish', () => resetSocket(socket));
  else socket.resetAndDestroy();
}
