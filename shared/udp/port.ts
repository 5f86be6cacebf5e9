import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import type { Endpoint } from '../wire/endpoint.ts';

/** What the kernel does not take at once waits here; past it a datagram is dropped, as by any full interface. */
export const SEND_QUEUE_MAX_BYTES = 256 * 1024;
/** What a datagram that waits costs besides its bytes: empty ones are bounded too. */
const WAITING_COST_BYTES = 256;

export interface UdpPortEvents {
  onDatagram(payload: Buffer, remote: RemoteInfo): void;
  /** The port cannot be used any more; it is closed. Not told of a port that never was: see `failure`. */
  onFailed(): void;
}

/**
 * One UDP port of this host, of the kernel's choice, at one address or (`0.0.0.0`, `::`) at all of its family, unconnected.
 * It cannot send to the broadcast addresses of the host's networks: SO_BROADCAST is not set, so the kernel refuses (EACCES).
 */
export class UdpPort {
  readonly #socket: Socket;
  #failure: string | undefined;
  #bound = false;
  #closed = false;

  /** Look at `failure` before it is used. */
  constructor(address: string, events: UdpPortEvents) {
    const family = isIPv6(address) ? 6 : 4;
    this.#socket = createSocket({
      type: family === 6 ? 'udp6' : 'udp4',
      ipv6Only: family === 6,
      // Only addresses come here. Without this each datagram takes a turn of the loop, in a queue without a limit.
      lookup: (host, _options, callback) => callback(null, host, family),
    });
    this.#socket.on('error', (error: NodeJS.ErrnoException) => {
      if (this.#closed) return;
      this.#failure = error.code ?? error.message;
      this.close();
      if (this.#bound) events.onFailed();
    });
    this.#socket.on('message', (payload, remote) => events.onDatagram(payload, remote));
    this.#socket.bind({ port: 0, address, exclusive: true });
    this.#bound = this.#failure === undefined;
  }

  /** The errno with which it could not be had, or was lost. Binding is told of at once. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Where it is; not after it is closed. */
  get endpoint(): Endpoint {
    const { address, port } = this.#socket.address();
    return { address, port };
  }

  /** False: dropped, the queue is full. `onFailed` is told what the kernel said of a datagram that it did not take. */
  send(
    payload: Buffer,
    address: string,
    port: number,
    onFailed: (errno: string | undefined) => void,
  ): boolean {
    if (this.#closed) return false;
    const waitingBytes =
      this.#socket.getSendQueueSize() + this.#socket.getSendQueueCount() * WAITING_COST_BYTES;
    if (waitingBytes + payload.length > SEND_QUEUE_MAX_BYTES) return false;
    this.#socket.send(payload, port, address, (error) => {
      if (error && !this.#closed) onFailed((error as NodeJS.ErrnoException).code);
    });
    return true;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.close();
  }
}
