import {
  type Anchor,
  type AnchorHead,
  type AnchorResult,
  type AnchorStep,
  type AnchorVolume,
  equalHeads,
} from '../../guest/counter/anchor.ts';
import { PosternError } from '../../shared/errors.ts';
import type { Clock } from '../../shared/objects/clock.ts';
import type { Random } from '../../shared/objects/random.ts';

/** Heads that outlive the anchors over them, as a real anchor outlives the guest. */
export class AnchorHeads {
  readonly heads = new Map<string, AnchorHead>();
}

/** An anchor in this process. Like a real one it looks at what it holds and moves it in one step. */
export class MemoryAnchor implements Anchor {
  readonly capabilities = { kind: 'memory', production: false, maxLeaves: 3 } as const;
  readonly #heads: Map<string, AnchorHead>;

  constructor(heads = new AnchorHeads()) {
    this.#heads = heads.heads;
  }

  async create(volume: AnchorVolume, first: AnchorHead): Promise<'created' | 'exists'> {
    const key = volume.anchorId.toString('hex');
    if (this.#heads.has(key)) return 'exists';
    this.#heads.set(key, first);
    return 'created';
  }

  async read(volume: AnchorVolume): Promise<AnchorHead | undefined> {
    return this.#heads.get(volume.anchorId.toString('hex'));
  }

  async advance(volume: AnchorVolume, { from, leaves }: AnchorStep): Promise<AnchorResult> {
    const key = volume.anchorId.toString('hex');
    const head = this.#heads.get(key);
    const last = leaves.at(-1);
    if (last === undefined || leaves[0]?.seq !== from.seq + 1)
      throw new RangeError('leaves that do not follow');
    if (head !== undefined && equalHeads(head, last)) return { outcome: 'advanced' };
    if (head === undefined || !equalHeads(head, from)) return { outcome: 'conflict', head };
    this.#heads.set(key, last);
    return { outcome: 'advanced' };
  }
}

/** The same, with answers that are late, lost, or lost before anything was done; also an anchor out of reach. */
export class FaultyAnchor implements Anchor {
  readonly #inner: Anchor;
  readonly #clock: Clock;
  readonly #random: Random;
  rate: number;
  unreachableUntilMs = 0;

  constructor(inner: Anchor, clock: Clock, random: Random, rate: number) {
    this.#inner = inner;
    this.#clock = clock;
    this.#random = random;
    this.rate = rate;
  }

  get capabilities() {
    return this.#inner.capabilities;
  }

  create(volume: AnchorVolume, first: AnchorHead): Promise<'created' | 'exists'> {
    return this.#inner.create(volume, first);
  }

  read(volume: AnchorVolume): Promise<AnchorHead | undefined> {
    return this.#around(() => this.#inner.read(volume));
  }

  advance(volume: AnchorVolume, step: AnchorStep): Promise<AnchorResult> {
    return this.#around(() => this.#inner.advance(volume, step));
  }

  async #around<T>(work: () => Promise<T>): Promise<T> {
    const lost = () => new PosternError('ERR_ANCHOR_UNAVAILABLE', 'the answer was lost');
    if (this.#clock.nowMs() < this.unreachableUntilMs) throw lost();
    await this.#clock.sleep(this.#random() * 20);
    if (this.#random() < this.rate) {
      // Refused; or done some time later, when nobody listens any more.
      if (this.#random() < 0.5)
        void this.#clock
          .sleep(this.#random() * 2000)
          .then(work)
          .catch(() => undefined);
      throw lost();
    }
    const answer = await work();
    await this.#clock.sleep(this.#random() * 20);
    if (this.#random() < this.rate) throw lost();
    return answer;
  }
}
