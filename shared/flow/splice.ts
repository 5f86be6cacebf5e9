import type { Socket } from 'node:net';
import type { Peer } from '../transport/address.ts';
import { maxWriteBytesOf } from '../transport/stream.ts';
import type { Stream } from '../transport/transport.ts';
import type { Abort } from './bulk-message.ts';
import { BulkMeter, countFlow, type Lender, type Loan, lendFlow } from './bulk-threads.ts';
import type { Flow, FlowEnd, FlowOptions, StartFlow } from './flow.ts';
import { Pump } from './pump.ts';

/** How long a flow that was reset here waits for the peer to close the tunnel stream after our RESET. */
export const RESET_LINGER_MS = 5_000;

/** Where a flow's counts stand. */
const SENT = 0;
const RECEIVED = 1;

/** See flow.ts. */
export const startFlow: StartFlow = (local, tunnel, options) => new Splice(local, tunnel, options);

class Splice implements Flow {
  readonly #local: Pump;
  readonly #tunnel: Pump;
  readonly #peer: Peer;
  readonly #options: FlowOptions;
  readonly #meter = new BulkMeter();
  #counts: Float64Array;
  /** While another thread runs the flow. */
  #loan: Loan | undefined;
  #mayLend: boolean;
  #aborted: Abort | undefined;
  #end: FlowEnd = 'closed';
  #openCount = 2;
  #linger: NodeJS.Timeout | undefined;

  constructor(local: Socket, tunnel: Stream, options: FlowOptions) {
    this.#options = options;
    this.#peer = tunnel.peer;
    this.#counts = options.counts ?? new Float64Array(2);
    this.#mayLend = options.counts === undefined && options.limiter === undefined;
    this.#local = this.#pump(local, SENT);
    this.#tunnel = this.#pump(tunnel, RECEIVED);
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
    this.#local.start(tunnelSocket, maxWriteBytesOf(tunnel.peer.kind));
    this.#tunnel.start(localSocket, Number.POSITIVE_INFINITY);
    countFlow(1);
    this.#onRest();
  }

  get sentBytes(): number {
    return this.#counts[SENT] ?? 0;
  }

  get receivedBytes(): number {
    return this.#counts[RECEIVED] ?? 0;
  }

  abort(end: Abort): void {
    this.#aborted ??= end;
    if (this.#loan !== undefined) this.#loan.abort(end);
    else this.#finish(end);
  }

  #pump(socket: Socket, direction: 0 | 1): Pump {
    return new Pump(socket, {
      onBytes: (length) => {
        this.#counts[direction] = (this.#counts[direction] ?? 0) + length;
        return this.#options.limiter?.take(length) ?? 0;
      },
      onRest: () => this.#onRest(),
    });
  }

  /** A pump has written all that it had read: a bulk flow may go to another thread while both have. */
  #onRest(): void {
    if (!this.#mayLend || this.#end !== 'closed' || this.#loan !== undefined) return;
    if (!this.#meter.isBulk(this.sentBytes + this.receivedBytes)) return;
    const localFd = this.#local.restingFd;
    const tunnelFd = this.#tunnel.restingFd;
    if (localFd === undefined || tunnelFd === undefined) return;
    this.#loan = lendFlow({ localFd, tunnelFd, peer: this.#peer, counts: this.#counts }, this.#lender());
    if (this.#loan === undefined) return;
    this.#counts = this.#loan.counts;
    this.#local.park();
    this.#tunnel.park();
  }

  #lender(): Lender {
    return {
      onReset: () => this.#options.sendReset(),
      onDone: (end) => this.#loanDone(end),
      onReturned: () => this.#loanReturned(),
      onThreadLost: () => this.#threadLost(),
    };
  }

  /** The thread has ended the flow and closed its duplicates; ours are the last. */
  #loanDone(end: FlowEnd): void {
    this.#takeBack();
    this.#end = end;
    if (end === 'closed') this.#local.socket.destroy();
    else resetSocket(this.#local.socket);
    this.#tunnel.socket.destroy();
  }

  #loanReturned(): void {
    this.#takeBack();
    if (this.#aborted !== undefined) this.#finish(this.#aborted);
    this.#local.resume();
    this.#tunnel.resume();
  }

  /** Nobody knows what the thread had read and not written, so both ends see a reset. */
  #threadLost(): void {
    this.#takeBack();
    resetSocket(this.#local.socket);
    this.#localReset();
  }

  #takeBack(): void {
    this.#loan = undefined;
    this.#mayLend = false;
    this.#local.unpark();
    this.#tunnel.unpark();
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

  #finish(end: FlowEnd): void {
    if (this.#end === 'closed') this.#end = end;
    resetSocket(this.#local.socket);
    this.#tunnel.socket.destroy();
  }

  #closed(): void {
    this.#openCount -= 1;
    if (this.#openCount > 0) return;
    countFlow(-1);
    clearTimeout(this.#linger);
    this.#local.release();
    this.#tunnel.release();
    this.#options.onDone({ end: this.#end, sentBytes: this.sentBytes, receivedBytes: this.receivedBytes });
  }
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
