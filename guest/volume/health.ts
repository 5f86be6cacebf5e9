import { isPosternError, PosternError } from '../../shared/errors.ts';

export type HealthState = 'serving' | 'poisoned' | 'fenced' | 'closed';

/** Whether the volume may still promise anything. It only ever gets worse. */
export class Health {
  #state: HealthState = 'serving';
  #error: PosternError | undefined;
  readonly #listeners: ((error: PosternError) => void)[] = [];

  get state(): HealthState {
    return this.#state;
  }

  /** Told once, of the first failure. */
  onFailure(listener: (error: PosternError) => void): void {
    this.#listeners.push(listener);
  }

  /** @throws the reason why nothing can be promised any more */
  check(): void {
    if (this.#error !== undefined) throw this.#error;
  }

  /** Reads stay possible after a write was lost, not after another instance took the volume. */
  checkRead(): void {
    if (this.#state !== 'poisoned') this.check();
  }

  /** An error that is none of ours is a bug, and is thrown on where it can be seen. */
  fail(cause: unknown): void {
    if (!isPosternError(cause)) {
      this.#end('poisoned', new PosternError('ERR_VOLUME_POISONED', 'an internal error', { cause }));
      throw cause;
    }
    if (this.#state !== 'serving' && cause.code !== 'ERR_VOLUME_FENCED') return;
    if (cause.code === 'ERR_VOLUME_FENCED') this.#end('fenced', cause);
    else {
      const message = `a write was not stored in time; the volume must be attached again: ${cause.message}`;
      this.#end('poisoned', new PosternError('ERR_VOLUME_POISONED', message, { cause }));
    }
  }

  close(): void {
    this.#end('closed', new PosternError('ERR_VOLUME_CLOSED', 'the volume is detached'));
  }

  #end(state: HealthState, error: PosternError): void {
    if (this.#state === 'closed' || this.#state === 'fenced') return;
    this.#state = state;
    this.#error = error;
    for (const listener of this.#listeners) listener(error);
  }
}
