import type { Socket } from 'node:net';
import { PAUSED_CHECK_MS } from './limits.ts';

const NO_BYTES = Buffer.alloc(0);

/**
 * The times at which a socket is not read. Nothing would tell then that its peer is gone, and one that waits with no reply
 * to be sent would keep its place in the queue and its connection's; so the kernel is asked.
 */
export class Pause {
  readonly #socket: Socket;
  #timer: NodeJS.Timeout | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  begin(): void {
    this.#socket.pause();
    this.#timer ??= setInterval(() => this.#check(), PAUSED_CHECK_MS).unref();
  }

  end(): void {
    this.#stopChecking();
    this.#socket.resume();
  }

  /** A write of no bytes sends nothing, and fails where the peer is gone: 'error' and 'close' follow. */
  #check(): void {
    if (this.#socket.destroyed) this.#stopChecking();
    else if (this.#socket.writableLength === 0) this.#socket.write(NO_BYTES);
  }

  #stopChecking(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
