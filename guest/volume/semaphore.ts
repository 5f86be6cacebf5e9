/** At most `limit` at a time, in order of asking. */
export class Semaphore {
  readonly #limit: number;
  readonly #waiting: (() => void)[] = [];
  #held = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#held >= this.#limit) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#held += 1;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      // The place passes from hand to hand, so that nobody who asks later gets in between.
      if (next === undefined) this.#held -= 1;
      else next();
    }
  }
}
