import type { Socket } from 'node:net';
import type { Peer, TransportAddress } from './address.ts';

/**
 * A reliable, ordered byte stream to the other side. Always half-open capable: `end()` closes one direction and
 * leaves the other. `destroy()` closes both at once; only TCP has `resetAndDestroy()`.
 */
export interface Stream extends Socket {
  readonly peer: Peer;
}

export interface ConnectOptions {
  /** Gives up: the promise rejects with ERR_TRANSPORT_ABORTED and nothing is left open. */
  readonly signal?: AbortSignal;
  /** Default CONNECT_TIMEOUT_MS. Rejects with ERR_TRANSPORT_TIMEOUT. */
  readonly timeoutMs?: number;
}

export interface Listener {
  readonly address: TransportAddress;
  /** Stops accepting; streams that were accepted live on. Resolves when the address is free again. */
  close(): Promise<void>;
}

export type OnStream = (stream: Stream) => void;

/** One kind of transport. Failures are PosternErrors of ERR_TRANSPORT_*. */
export interface Transport {
  connect(address: TransportAddress, options?: ConnectOptions): Promise<Stream>;
  listen(address: TransportAddress, onStream: OnStream): Promise<Listener>;
}
