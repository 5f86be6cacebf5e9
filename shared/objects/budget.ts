import { throwIfAborted, unavailable } from './failure.ts';

interface Waiter {
  readonly sizeBytes: number;
  admit(): void;
}

/** Bytes of memory that calls share: who finds too few left waits his turn, in the order of arrival. */
export class ByteBudget {
  readonly #limitBytes: number;
  readonly #maxWaiting: number;
  #usedBytes = 0;
  #waiters: Waiter[] = [];

  /** `maxWaiting`: one more is refused at once with ERR_STORE_UNAVAILABLE. */
  constructor(limitBytes: number, maxWaiting: number) {
    this.#limitBytes = limitBytes;
    this.#maxWaiting = maxWaiting;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /**
   * Takes so many bytes of the budget, which the caller gives back with `release`.
   * @throws PosternError ERR_STORE_UNAVAILABLE when the caller gives up first, or too many wait
   */
  acquire(sizeBytes: number, signal?: AbortSignal): Promise<void> {
    if (sizeBytes > this.#limitBytes)
      throw new RangeError(`${sizeBytes} bytes of a budget of ${this.#limitBytes}`);
    throwIfAborted(signal);
    if (this.#waiters.length === 0 && this.#usedBytes + sizeBytes <= this.#limitBytes) {
      this.#usedBytes += sizeBytes;
      return Promise.resolve();
    }
    if (this.#waiters.length >= this.#maxWaiting) {
      throw unavailable(`${this.#maxWaiting} calls wait for memory already`);
    }
    return this.#wait(sizeBytes, signal);
  }

  release(sizeBytes: number): void {
    this.#usedBytes -= sizeBytes;
    for (;;) {
      const next = this.#waiters[0];
      if (next === undefined || this.#usedBytes + next.sizeBytes > this.#limitBytes) return;
      this.#waiters.shift();
      this.#usedBytes += next.sizeBytes;
      next.admit();
    }
  }

  #wait(sizeBytes: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        reject(unavailable('the caller gave up', signal?.reason));
        // A smaller one behind this may fit now.
        this.release(0);
      };
      const admit = (): void => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      const waiter: Waiter = { sizeBytes, admit };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiters.push(waiter);
    });
  }
}
