import type { Socket } from 'node:net';
import { recycleBody } from '../../shared/objects/bodies.ts';

/**
 * Replies on their way out. What is posted in one turn of the event loop leaves in one `writev`, headers and data as
 * they are; `released` is called with the sums of what was posted once the kernel has taken it.
 */
export class Outbox {
  readonly #socket: Socket;
  readonly #released: (replies: number, heldBytes: number) => void;
  readonly #flush = (): void => this.#send();
  #buffers: Buffer[] = [];
  #replies = 0;
  #heldBytes = 0;

  constructor(socket: Socket, released: (replies: number, heldBytes: number) => void) {
    this.#socket = socket;
    this.#released = released;
  }

  /** `heldBytes` is what the reply's request holds of the connection's budget. */
  post(reply: readonly Buffer[], heldBytes: number): void {
    // After the promises that are settled already, and before anything is awaited from the system.
    if (this.#replies === 0) process.nextTick(this.#flush);
    for (const buffer of reply) this.#buffers.push(buffer);
    this.#replies += 1;
    this.#heldBytes += heldBytes;
  }

  #send(): void {
    const buffers = this.#buffers;
    const replies = this.#replies;
    const heldBytes = this.#heldBytes;
    this.#buffers = [];
    this.#replies = 0;
    this.#heldBytes = 0;
    const last = buffers.at(-1);
    if (last === undefined) return;
    this.#socket.cork();
    for (const buffer of buffers) {
      if (buffer !== last) this.#socket.write(buffer);
    }
    this.#socket.write(last, (error) => {
      // What a device read is the caller's; of a stream that broke, some write may be under way still.
      if (!error) for (const buffer of buffers) recycleBody(buffer);
      this.#released(replies, heldBytes);
    });
    this.#socket.uncork();
  }
}
