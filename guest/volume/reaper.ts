import { isPosternError } from '../../shared/errors.ts';
import type { VolumeEnvironment } from './environment.ts';
import type { Health } from './health.ts';
import { commitName, segmentName } from './names.ts';
import type { VolumeObjects } from './objects.ts';
import type { FreedObject } from './record.ts';

const PARALLEL_DELETES = 8;

interface Due {
  readonly object: FreedObject;
  readonly dueMs: number;
}

/** Deletes what an anchored checkpoint freed, a grace period later. What a crash leaves over, the next attach takes up. */
export class Reaper {
  readonly #objects: VolumeObjects;
  readonly #environment: VolumeEnvironment;
  readonly #graceMs: number;
  readonly #health: Health;
  /** Aborted when the volume ends: nobody is to wait for a grace period that nothing comes after. */
  readonly #ended = new AbortController();
  #due: Due[] = [];
  #running: Promise<void> | undefined;
  /** The batch, or the wait, under way. */
  #step: Promise<void> = Promise.resolve();
  deletedCount = 0;

  constructor(objects: VolumeObjects, environment: VolumeEnvironment, graceMs: number, health: Health) {
    this.#objects = objects;
    this.#environment = environment;
    this.#graceMs = graceMs;
    this.#health = health;
    health.onFailure(() => this.#ended.abort());
  }

  /** Freed and not deleted yet: every checkpoint names these again. */
  get waiting(): readonly FreedObject[] {
    return this.#due.map(({ object }) => object);
  }

  get names(): readonly string[] {
    return this.#due.map(({ object }) => nameOf(object));
  }

  /** Only for what a commit freed that is anchored. */
  add(freed: readonly FreedObject[]): void {
    const dueMs = this.#environment.clock.nowMs() + this.#graceMs;
    for (const object of freed) this.#due.push({ object, dueMs });
    if (this.#due.length > 0) this.#running ??= this.#run();
  }

  /** Resolves when what waits now is deleted, or nothing more can be done. */
  async drained(): Promise<void> {
    const mine = new Set(this.#due);
    while (this.#running !== undefined && this.#due.some((due) => mine.has(due))) await this.#step;
  }

  async #run(): Promise<void> {
    while (this.#due.length > 0 && this.#health.state === 'serving') {
      this.#step = this.#next();
      await this.#step;
    }
    this.#running = undefined;
  }

  async #next(): Promise<void> {
    const { clock } = this.#environment;
    const waitMs = (this.#due[0]?.dueMs ?? 0) - clock.nowMs();
    if (waitMs > 0) return clock.sleep(waitMs, this.#ended.signal);
    const batch = this.#due.slice(0, PARALLEL_DELETES);
    const done = await Promise.all(batch.map(({ object }) => this.#delete(object)));
    const failed = batch.filter((_, index) => !done[index]);
    this.#due = [...this.#due.slice(batch.length), ...failed];
    if (failed.length === batch.length) await clock.sleep(this.#graceMs + 1000, this.#ended.signal);
  }

  async #delete(object: FreedObject): Promise<boolean> {
    const name = nameOf(object);
    try {
      await this.#objects.delete(name);
      this.deletedCount += 1;
      return true;
    } catch (error) {
      // Space that is not given back is no loss of data; the next checkpoint names it again.
      if (!isPosternError(error)) throw error;
      this.#environment.log.warn({ name, code: error.code }, 'a freed object could not be deleted yet');
      return false;
    }
  }
}

function nameOf(object: FreedObject): string {
  return object.kind === 'segment' ? segmentName(object.id) : commitName(object.epoch, object.seq);
}
