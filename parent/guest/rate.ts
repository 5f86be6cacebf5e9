/**
 * A token bucket that may go into debt. One guest has one for its new flows and one for its bytes; nothing here is
 * shared between guests.
 */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #now: () => number;
  #tokens: number;
  #filledAt: number;

  /** @param now milliseconds of a clock that never goes back */
  constructor(perSecond: number, burst = perSecond, now: () => number = () => performance.now()) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#now = now;
    this.#tokens = burst;
    this.#filledAt = now();
  }

  /** Takes one token if there is one. */
  tryTake(): boolean {
    this.#fill();
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  /** Takes `count` unless there is a debt, which it may make; false: nothing was taken. */
  trySpend(count: number): boolean {
    this.#fill();
    if (this.#tokens <= 0) return false;
    this.#tokens -= count;
    return true;
  }

  /**
   * Takes `count` whether or not they are there, and says for how many milliseconds the taker must then wait. Takers
   * wait in the order in which they came, each for the debt it found: no flow gets ahead by being greedy.
   */
  take(count: number): number {
    this.#fill();
    this.#tokens -= count;
    return this.#tokens >= 0 ? 0 : Math.ceil((-this.#tokens / this.#perSecond) * 1000);
  }

  #fill(): void {
    const now = this.#now();
    this.#tokens = Math.min(this.#burst, this.#tokens + ((now - this.#filledAt) / 1000) * this.#perSecond);
    this.#filledAt = now;
  }
}
