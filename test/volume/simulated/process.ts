import type {
  Anchor,
  AnchorHead,
  AnchorResult,
  AnchorStep,
  AnchorVolume,
} from '../../../guest/counter/anchor.ts';
import { type Around, type StoreCall, wrapStore } from '../../../shared/objects/around.ts';
import type { Clock } from '../../../shared/objects/clock.ts';
import type { Random } from '../../../shared/objects/random.ts';
import type { ObjectStore } from '../../../shared/objects/store.ts';

/**
 * One life of a guest, seen from outside: each of its calls to the store and the anchor has two moments, before it is
 * done and after, and the process may end at any of them. From then on nothing that it does reaches anything, and
 * nothing answers it.
 */
export class SimulatedProcess {
  readonly store: ObjectStore;
  readonly anchor: Anchor;
  readonly ended: Promise<void>;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #latencyMs: number;
  #endsAt: number;
  #end: () => void = () => undefined;
  #isEnded = false;
  /** Moments so far. */
  moments = 0;

  /** `endsAt`: the moment at which it ends; Infinity: when `kill` is called. */
  constructor(
    store: ObjectStore,
    anchor: Anchor,
    clock: Clock,
    random: Random,
    options: { readonly endsAt: number; readonly latencyMs: number },
  ) {
    this.#clock = clock;
    this.#random = random;
    this.#endsAt = options.endsAt;
    this.#latencyMs = options.latencyMs;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    const around: Around = <T>(_call: StoreCall, run: (signal: AbortSignal | undefined) => Promise<T>) =>
      this.#call(() => run(undefined));
    this.store = wrapStore(store, around);
    this.anchor = this.#wrapAnchor(anchor);
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** From here on it lives until it is killed. */
  spare(): void {
    this.#endsAt = Number.POSITIVE_INFINITY;
  }

  kill(): void {
    this.#isEnded = true;
    this.#end();
  }

  async #call<T>(work: () => Promise<T>): Promise<T> {
    await this.#moment();
    await this.#clock.sleep(this.#random() * this.#latencyMs);
    await this.#moment(true);
    const answer = await work().then(
      (value) => () => value,
      (error: unknown) => () => {
        throw error;
      },
    );
    await this.#clock.sleep(this.#random() * this.#latencyMs);
    await this.#moment();
    return answer();
  }

  /** What is on the wire when a process ends may still arrive. */
  async #moment(onTheWire = false): Promise<void> {
    this.moments += 1;
    if (this.moments >= this.#endsAt) this.kill();
    if (!this.#isEnded) return;
    if (onTheWire && this.#random() < 0.3) return;
    await new Promise<never>(() => undefined);
  }

  #wrapAnchor(anchor: Anchor): Anchor {
    return {
      capabilities: anchor.capabilities,
      create: (volume: AnchorVolume, first: AnchorHead) => this.#call(() => anchor.create(volume, first)),
      read: (volume: AnchorVolume) => this.#call(() => anchor.read(volume)),
      advance: (volume: AnchorVolume, step: AnchorStep): Promise<AnchorResult> =>
        this.#call(() => anchor.advance(volume, step)),
    };
  }
}
