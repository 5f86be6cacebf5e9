import { ByteBudget } from '../../shared/objects/budget.ts';
import { OBJECT_MAX_BYTES, type ObjectStore } from '../../shared/objects/store.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { type ServedOutcome, ServedStream } from './served-stream.ts';

/** Memory of one guest's objects on their way: four of the largest, so that a PUT does not wait for a GET. */
export const SERVICE_BUDGET_BYTES = 64 * 1024 * 1024;
/** A deep queue for one disk; more waits in the guest. */
export const SERVICE_MAX_REQUESTS = 64;
/** A guest opens two; the others are for the moment in which it replaces them. */
export const SERVICE_MAX_STREAMS = 4;
/** A guest says HELLO at once. */
export const HELLO_TIMEOUT_MS = 10_000;
/** 16 MiB at 300 KiB/s; a guest that is slower than that holds memory for nothing. */
export const BODY_TIMEOUT_MS = 60_000;

export interface ObjectServiceOptions {
  /** What this guest may use: granted, limited and counted already. */
  readonly store: ObjectStore;
  readonly budgetBytes?: number;
  readonly maxRequests?: number;
  readonly maxStreams?: number;
  readonly helloTimeoutMs?: number;
  readonly bodyTimeoutMs?: number;
}

/** The object streams of one guest, with memory and requests bounded over all of them. */
export class ObjectService {
  readonly #options: Required<ObjectServiceOptions>;
  readonly #budget: ByteBudget;
  readonly #streams = new Set<ServedStream>();

  constructor(options: ObjectServiceOptions) {
    this.#options = {
      budgetBytes: SERVICE_BUDGET_BYTES,
      maxRequests: SERVICE_MAX_REQUESTS,
      maxStreams: SERVICE_MAX_STREAMS,
      helloTimeoutMs: HELLO_TIMEOUT_MS,
      bodyTimeoutMs: BODY_TIMEOUT_MS,
      ...options,
    };
    const { budgetBytes, maxRequests, maxStreams } = this.#options;
    if (budgetBytes < OBJECT_MAX_BYTES)
      throw new RangeError(`a budget of ${budgetBytes} bytes holds no object`);
    this.#budget = new ByteBudget(budgetBytes, maxRequests * maxStreams);
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  get usedBytes(): number {
    return this.#budget.usedBytes;
  }

  /**
   * Serves a stream of kind `object` whose reply is sent, and owns it from now on; `signal` ends it at once.
   * @returns when the stream is closed and none of its requests is at the store any more; it rejects for bugs only
   */
  async serve(stream: Stream, signal?: AbortSignal): Promise<ServedOutcome> {
    const served = new ServedStream(stream, this.#options, this.#budget);
    if (this.#streams.size >= this.#options.maxStreams) {
      return served.refuse(`${this.#options.maxStreams} streams are open`);
    }
    this.#streams.add(served);
    const onAbort = (): void => served.close();
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();
    try {
      return await served.run();
    } finally {
      signal?.removeEventListener('abort', onAbort);
      this.#streams.delete(served);
    }
  }

  /** Asks the guest to open no more requests on these streams; it ends them when it has its answers. */
  drain(): void {
    for (const served of this.#streams) served.drain();
  }

  /** Ends every stream now. */
  close(): void {
    for (const served of this.#streams) served.close();
  }
}
