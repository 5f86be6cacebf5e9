import { isPosternError, PosternError } from '../../shared/errors.ts';
import { type Anchor, type AnchorLeaf, type AnchorVolume, equalHeads } from '../counter/anchor.ts';
import type { CommitPoint } from './commit.ts';
import type { VolumeEnvironment } from './environment.ts';
import { append, commitLeaf, type Frontier } from './frontier.ts';
import type { FlushMode } from './header.ts';
import type { VolumeKeys } from './keys.ts';
import type { VolumeLimits } from './limits.ts';

const FIRST_PAUSE_MS = 20;
const MAX_PAUSE_MS = 2000;

/** The last commit that the anchor is known to hold, and the log up to and including it. */
export interface AnchoredState {
  readonly point: CommitPoint;
  readonly frontier: Frontier;
}

interface Waiting {
  readonly leaf: AnchorLeaf;
  readonly durableMs: number;
}

export interface AnchoringOptions {
  /** Undefined in mode `none`: what is stored counts as anchored. */
  readonly anchor: Anchor | undefined;
  readonly volume: AnchorVolume;
  readonly keys: VolumeKeys;
  readonly mode: FlushMode;
  readonly environment: VolumeEnvironment;
  readonly limits: VolumeLimits;
  /** Commits up to this sequence number may be acknowledged. */
  onAcknowledge(seq: number): void;
  /** Commits up to this one are fresh for whoever attaches next. */
  onAnchored(point: CommitPoint): void;
  onFailure(error: unknown): void;
}

/** Moves the anchor along the commits as they become durable: in order, one step at a time, several commits a step. */
export class Anchoring {
  readonly #options: AnchoringOptions;
  readonly #outOfOrder = new Map<number, CommitPoint>();
  #waiting: Waiting[] = [];
  #anchored: AnchoredState;
  #durableSeq: number;
  #acknowledgedSeq: number;
  #isMoving = false;

  constructor(start: AnchoredState, durableSeq: number, options: AnchoringOptions) {
    this.#options = options;
    this.#anchored = start;
    this.#durableSeq = durableSeq;
    this.#acknowledgedSeq = start.point.seq;
  }

  get anchored(): CommitPoint {
    return this.#anchored.point;
  }

  /** Commits that exist already and are to be anchored with the first step: those an attach rolled forward over. */
  static leafOf(keys: VolumeKeys, point: CommitPoint): AnchorLeaf {
    const { epoch, seq, hash } = point;
    return { epoch, seq, commitHash: hash, leaf: commitLeaf(keys, epoch, seq, hash) };
  }

  rolledForward(points: readonly CommitPoint[]): void {
    for (const point of points) this.#wait(point);
  }

  /** The commit's object is stored; those before it may not be yet. */
  durable(point: CommitPoint): void {
    this.#outOfOrder.set(point.seq, point);
    for (;;) {
      const next = this.#outOfOrder.get(this.#durableSeq + 1);
      if (next === undefined) break;
      this.#outOfOrder.delete(next.seq);
      this.#durableSeq = next.seq;
      this.#wait(next);
    }
    this.#acknowledge();
    void this.#move();
  }

  #wait(point: CommitPoint): void {
    const leaf = Anchoring.leafOf(this.#options.keys, point);
    this.#waiting.push({ leaf, durableMs: this.#options.environment.clock.nowMs() });
  }

  /** Says how far flushes may be answered under the mode. */
  #acknowledge(): void {
    const { mode, environment } = this.#options;
    let seq = this.#anchored.point.seq;
    if (mode.kind === 'none') seq = this.#durableSeq;
    const oldest = this.#waiting[0];
    if (mode.kind === 'lazy' && oldest !== undefined) {
      const isFreshEnough = environment.clock.nowMs() - oldest.durableMs <= mode.maxMs;
      if (isFreshEnough) seq = Math.min(this.#durableSeq, seq + mode.maxCommits);
    }
    if (seq <= this.#acknowledgedSeq) return;
    this.#acknowledgedSeq = seq;
    this.#options.onAcknowledge(seq);
  }

  async #move(): Promise<void> {
    if (this.#isMoving) return;
    this.#isMoving = true;
    try {
      while (this.#waiting.length > 0) await this.#step();
    } catch (error) {
      this.#options.onFailure(error);
      return;
    }
    this.#isMoving = false;
  }

  async #step(): Promise<void> {
    const { anchor } = this.#options;
    const leaves = this.#waiting.slice(0, anchor?.capabilities.maxLeaves ?? Number.POSITIVE_INFINITY);
    if (anchor !== undefined) {
      await this.#advance(
        anchor,
        leaves.map(({ leaf }) => leaf),
      );
    }
    this.#waiting = this.#waiting.slice(leaves.length);
    for (const { leaf } of leaves) this.#anchored = follow(this.#anchored, leaf);
    this.#options.onAnchored(this.#anchored.point);
    this.#acknowledge();
  }

  /** The same leaves again and again until the anchor answers or the deadline is over. */
  async #advance(anchor: Anchor, leaves: readonly AnchorLeaf[]): Promise<void> {
    const { environment, limits } = this.#options;
    const { clock } = environment;
    const endMs = clock.nowMs() + limits.outageTimeoutMs;
    let rest = leaves;
    let from = this.#anchored;
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, MAX_PAUSE_MS)) {
      try {
        const result = await this.#attempt(anchor, from, rest);
        if (result.outcome === 'advanced') return;
        const { head } = result;
        const reached = rest.findIndex((leaf) => head !== undefined && equalHeads(leaf, head));
        if (reached === -1) throw fenced(head?.epoch, head?.seq);
        // An earlier attempt whose answer was lost got this far.
        for (const leaf of rest.slice(0, reached + 1)) from = follow(from, leaf);
        rest = rest.slice(reached + 1);
        if (rest.length === 0) return;
      } catch (error) {
        if (!isPosternError(error, 'ERR_ANCHOR_UNAVAILABLE')) throw error;
        if (clock.nowMs() + pauseMs >= endMs) {
          const message = `the anchor was out of reach: ${error.message}`;
          throw new PosternError('ERR_VOLUME_UNAVAILABLE', message, { cause: error });
        }
        await clock.sleep(pauseMs * (0.5 + environment.jitter() / 2));
      }
    }
  }

  async #attempt(anchor: Anchor, from: AnchoredState, leaves: readonly AnchorLeaf[]) {
    const { environment, limits, volume } = this.#options;
    const { epoch, seq, hash } = from.point;
    const step = { from: { epoch, seq, commitHash: hash }, frontier: from.frontier.hashes, leaves };
    return attemptAnchor(environment, limits, (signal) => anchor.advance(volume, step, { signal }));
  }
}

/** One request of an anchor, given up after `attemptMs`. @throws ERR_ANCHOR_UNAVAILABLE then */
export function attemptAnchor<T>(
  environment: VolumeEnvironment,
  limits: VolumeLimits,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const giveUp = new AbortController();
  return new Promise((resolve, reject) => {
    const stopTimer = environment.clock.after(limits.attemptMs, () => {
      const message = `the anchor did not answer within ${limits.attemptMs} ms`;
      reject(new PosternError('ERR_ANCHOR_UNAVAILABLE', message));
      giveUp.abort();
    });
    void run(giveUp.signal).then(resolve, reject).finally(stopTimer);
  });
}

function follow(state: AnchoredState, leaf: AnchorLeaf): AnchoredState {
  const { epoch, seq, commitHash: hash } = leaf;
  return { point: { epoch, seq, hash }, frontier: append(state.frontier, leaf.leaf) };
}

function fenced(epoch: number | undefined, seq: number | undefined): PosternError {
  const where = seq === undefined ? 'no such volume' : `commit ${epoch}-${seq}`;
  return new PosternError(
    'ERR_VOLUME_FENCED',
    `the anchor is at ${where}: another instance attached the volume`,
  );
}
