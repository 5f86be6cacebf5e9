/** Time as an input, so that hours of retries run in milliseconds in a simulation. */
export interface Clock {
  /** Monotonic, in milliseconds, from any origin. */
  nowMs(): number;
  /** Resolves after that time, or as soon as the signal aborts; it never rejects. */
  sleep(durationMs: number, signal?: AbortSignal): Promise<void>;
  /** Calls back once after that time, unless the answer is called first. */
  after(durationMs: number, wake: () => void): () => void;
}

export const SYSTEM_CLOCK: Clock = {
  nowMs: () => performance.now(),
  sleep: (durationMs, signal) => sleepUntil(SYSTEM_CLOCK, durationMs, signal),
  after(durationMs, wake) {
    const timer = setTimeout(wake, durationMs);
    return () => clearTimeout(timer);
  },
};

function sleepUntil(clock: Clock, durationMs: number, signal: AbortSignal | undefined): Promise<void> {
  if (signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const onAbort = (): void => {
      stop();
      resolve();
    };
    const stop = clock.after(durationMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** Past any deadline of anything that runs on a virtual clock. */
const RUN_MAX_MS = 100 * 24 * 3_600_000;

interface Sleeper {
  readonly wakeMs: number;
  wake(): void;
}

/** A clock that stands still until it is told to go on. Sleepers wake in the order of their time, then of arrival. */
export class VirtualClock implements Clock {
  #nowMs = 0;
  #sleepers: Sleeper[] = [];

  nowMs(): number {
    return this.#nowMs;
  }

  sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    return sleepUntil(this, durationMs, signal);
  }

  after(durationMs: number, wake: () => void): () => void {
    const sleeper: Sleeper = { wakeMs: this.#nowMs + Math.max(0, durationMs), wake };
    this.#sleepers.push(sleeper);
    return () => {
      this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
    };
  }

  get sleeperCount(): number {
    return this.#sleepers.length;
  }

  /** Wakes the earliest sleeper and moves the time there; false when nobody sleeps. */
  step(): boolean {
    let next: Sleeper | undefined;
    for (const sleeper of this.#sleepers) {
      if (next === undefined || sleeper.wakeMs < next.wakeMs) next = sleeper;
    }
    if (next === undefined) return false;
    this.#sleepers = this.#sleepers.filter((sleeper) => sleeper !== next);
    this.#nowMs = Math.max(this.#nowMs, next.wakeMs);
    next.wake();
    return true;
  }

  /**
   * Lets everything run that is ready, then steps, until the promise settles. Only for work that waits for nothing
   * but this clock and other promises.
   * @throws Error when it can never settle: nothing is ready, and nobody sleeps but what looks at something again and again
   */
  async run<T>(work: Promise<T>): Promise<T> {
    let settled = false;
    const done = (): void => {
      settled = true;
    };
    work.then(done, done);
    const endMs = this.#nowMs + RUN_MAX_MS;
    for (;;) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      if (settled) return work;
      if (this.#nowMs > endMs || !this.step())
        throw new Error('virtual clock: the work waits for something that never comes');
    }
  }
}
