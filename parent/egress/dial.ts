import { connect, type Socket } from 'node:net';
import { type DialFailure, failureOfErrno, weightiest } from './errno.ts';
import { type Candidate, interleave } from './order.ts';

/** RFC 8305 section 5: the recommended Connection Attempt Delay. */
export const ATTEMPT_DELAY_MS = 250;
/** Linux gives its fourth SYN 15 s; a destination that is silent by then answers a retry, if anything. */
export const ATTEMPT_TIMEOUT_MS = 20_000;
/** An application's own patience is seldom more; it bounds how long a black hole holds a place in the quota. */
export const DIAL_TIMEOUT_MS = 30_000;
/** How long an outside connection is idle before the kernel asks whether the peer still lives. */
export const TCP_KEEP_ALIVE_MS = 120_000;

export type DialOutcome =
  /** The socket is paused and the caller's. */
  | { readonly kind: 'connected'; readonly socket: Socket; readonly addressIndex: number }
  | { readonly kind: 'failed'; readonly failure: DialFailure }
  | { readonly kind: 'cancelled' };

export interface DialTimes {
  readonly attemptDelayMs: number;
  readonly attemptTimeoutMs: number;
  readonly timeoutMs: number;
}

const DEFAULT_TIMES: DialTimes = {
  attemptDelayMs: ATTEMPT_DELAY_MS,
  attemptTimeoutMs: ATTEMPT_TIMEOUT_MS,
  timeoutMs: DIAL_TIMEOUT_MS,
};

/**
 * Connects to the first of the addresses that answers (Happy Eyeballs, RFC 8305 section 5). Never rejects; whatever
 * the outcome, no other socket is left.
 */
export function dial(
  candidates: readonly Candidate[],
  port: number,
  signal: AbortSignal,
  times: DialTimes = DEFAULT_TIMES,
): Promise<DialOutcome> {
  return new Promise((resolve) => new Race(candidates, port, signal, times, resolve));
}

class Race {
  readonly #waiting: Candidate[];
  readonly #port: number;
  readonly #times: DialTimes;
  readonly #resolve: (outcome: DialOutcome) => void;
  readonly #running = new Map<Socket, NodeJS.Timeout>();
  readonly #failures: DialFailure[] = [];
  readonly #deadline: NodeJS.Timeout;
  readonly #signal: AbortSignal;
  #stagger: NodeJS.Timeout | undefined;

  constructor(
    candidates: readonly Candidate[],
    port: number,
    signal: AbortSignal,
    times: DialTimes,
    resolve: (outcome: DialOutcome) => void,
  ) {
    this.#waiting = [...interleave(candidates)];
    this.#port = port;
    this.#times = times;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#deadline = setTimeout(() => this.#settle({ kind: 'failed', failure: 'timeout' }), times.timeoutMs);
    signal.addEventListener('abort', this.#onAbort);
    if (signal.aborted) this.#onAbort();
    else this.#startNext();
  }

  readonly #onAbort = (): void => this.#settle({ kind: 'cancelled' });

  #startNext(): void {
    clearTimeout(this.#stagger);
    const candidate = this.#waiting.shift();
    if (candidate === undefined) {
      if (this.#running.size === 0) this.#settle({ kind: 'failed', failure: weightiest(this.#failures) });
      return;
    }
    this.#attempt(candidate);
    if (this.#waiting.length > 0) {
      this.#stagger = setTimeout(() => this.#startNext(), this.#times.attemptDelayMs);
    }
  }

  #attempt({ address, index }: Candidate): void {
    const socket = connect({
      host: address,
      port: this.#port,
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: TCP_KEEP_ALIVE_MS,
    });
    const onError = (error: NodeJS.ErrnoException): void => this.#failed(socket, failureOfErrno(error.code));
    const timer = setTimeout(() => this.#failed(socket, 'timeout'), this.#times.attemptTimeoutMs);
    this.#running.set(socket, timer);
    socket.once('error', onError);
    socket.once('connect', () => {
      this.#running.delete(socket);
      clearTimeout(timer);
      socket.off('error', onError);
      this.#settle({ kind: 'connected', socket, addressIndex: index });
    });
  }

  #failed(socket: Socket, failure: DialFailure): void {
    if (!this.#drop(socket)) return;
    this.#failures.push(failure);
    // A failure brings the next attempt forward; nothing is gained by waiting out the delay.
    this.#startNext();
  }

  #drop(socket: Socket): boolean {
    const timer = this.#running.get(socket);
    if (timer === undefined) return false;
    this.#running.delete(socket);
    clearTimeout(timer);
    // What the loser still has to say is of no interest, and must not be an unhandled error.
    socket.removeAllListeners('connect').on('error', () => {});
    socket.destroy();
    return true;
  }

  #settle(outcome: DialOutcome): void {
    clearTimeout(this.#deadline);
    clearTimeout(this.#stagger);
    this.#signal.removeEventListener('abort', this.#onAbort);
    for (const socket of [...this.#running.keys()]) this.#drop(socket);
    this.#waiting.length = 0;
    this.#resolve(outcome);
  }
}
