import { isPosternError, PosternError } from '../errors.ts';
import { type Clock, SYSTEM_CLOCK } from './clock.ts';
import { unavailable } from './failure.ts';
import { listAll } from './list-all.ts';
import type { ObjectStore } from './store.ts';

/** A count is one LIST for each thousand objects; a guest over its quota causes no more than one a minute. */
export const RECOUNT_PAUSE_MS = 60_000;
/** A count past this many objects is given up, and the quota refuses: 10,000 LISTs are no start-up. */
export const RECOUNT_MAX_KEYS = 10_000_000;

export interface Quota {
  readonly maxBytes: number;
  readonly maxObjects: number;
}

export interface Usage {
  readonly sizeBytes: number;
  readonly objectCount: number;
}

/**
 * Refuses a PUT that would take the objects under a prefix over a quota, with ERR_STORE_LIMIT. It counts what is there
 * by listing before the first PUT; from then on it adds what it puts. What deletes free is found by counting again
 * once the quota is reached, so that usage is never counted too low, and a DELETE stays one request.
 */
export function quotaStore(
  inner: ObjectStore,
  prefix: string,
  quota: Quota,
  clock: Clock = SYSTEM_CLOCK,
): ObjectStore {
  const account = new Account(inner, prefix, clock);
  return {
    async putIfAbsent(key, bytes, options) {
      if (!(await account.reserve(bytes.length, quota))) {
        const message = `${prefix}: the quota of ${quota.maxBytes} bytes in ${quota.maxObjects} objects is used up`;
        throw new PosternError('ERR_STORE_LIMIT', message);
      }
      let counts = false;
      try {
        const answer = await inner.putIfAbsent(key, bytes, options);
        counts = answer === 'created';
        return answer;
      } catch (error) {
        // In doubt it counts, until the next listing tells.
        counts = isPosternError(error, 'ERR_STORE_AMBIGUOUS');
        throw error;
      } finally {
        account.settle(bytes.length, counts);
      }
    },
    get: (key, options) => inner.get(key, options),
    head: (key, options) => inner.head(key, options),
    list: (listed, options) => inner.list(listed, options),
    async delete(key, options) {
      await inner.delete(key, options);
      account.noteDelete();
    },
  };
}

class Account {
  readonly #store: ObjectStore;
  readonly #prefix: string;
  readonly #clock: Clock;
  #listed: Usage | undefined;
  /** Put since the last listing began; that may have seen some of it. */
  readonly #added = { sizeBytes: 0, objectCount: 0 };
  /** At the store now. */
  readonly #reserved = { sizeBytes: 0, objectCount: 0 };
  #deletedSince = false;
  #countedAtMs = Number.NEGATIVE_INFINITY;
  #counting: Promise<void> | undefined;

  constructor(store: ObjectStore, prefix: string, clock: Clock) {
    this.#store = store;
    this.#prefix = prefix;
    this.#clock = clock;
  }

  /** Sets room for one object aside, until `settle`; false when there is none. */
  async reserve(sizeBytes: number, quota: Quota): Promise<boolean> {
    if (this.#listed === undefined) await this.#count();
    if (this.#take(sizeBytes, quota)) return true;
    const rested = this.#clock.nowMs() - this.#countedAtMs >= RECOUNT_PAUSE_MS;
    if (this.#counting === undefined && !(this.#deletedSince && rested)) return false;
    await this.#count();
    return this.#take(sizeBytes, quota);
  }

  settle(sizeBytes: number, counts: boolean): void {
    this.#reserved.sizeBytes -= sizeBytes;
    this.#reserved.objectCount -= 1;
    if (!counts) return;
    this.#added.sizeBytes += sizeBytes;
    this.#added.objectCount += 1;
  }

  noteDelete(): void {
    this.#deletedSince = true;
  }

  #take(sizeBytes: number, quota: Quota): boolean {
    const listed = this.#listed ?? { sizeBytes: 0, objectCount: 0 };
    const usedBytes = listed.sizeBytes + this.#added.sizeBytes + this.#reserved.sizeBytes;
    const usedObjects = listed.objectCount + this.#added.objectCount + this.#reserved.objectCount;
    if (usedBytes + sizeBytes > quota.maxBytes || usedObjects + 1 > quota.maxObjects) return false;
    this.#reserved.sizeBytes += sizeBytes;
    this.#reserved.objectCount += 1;
    return true;
  }

  /** One count at a time, shared by all who wait for it. */
  #count(): Promise<void> {
    this.#counting ??= this.#list().finally(() => {
      this.#counting = undefined;
    });
    return this.#counting;
  }

  async #list(): Promise<void> {
    const addedBefore = { ...this.#added };
    this.#deletedSince = false;
    let sizeBytes = 0;
    let objectCount = 0;
    try {
      for await (const object of listAll(this.#store, this.#prefix, { maxKeys: RECOUNT_MAX_KEYS })) {
        sizeBytes += object.sizeBytes;
        objectCount += 1;
      }
    } catch (error) {
      // A quota that cannot be counted refuses: nothing was put, and it may be counted later.
      throw isPosternError(error) ? unavailable(`${this.#prefix}: usage cannot be counted`, error) : error;
    } finally {
      this.#countedAtMs = this.#clock.nowMs();
    }
    this.#listed = { sizeBytes, objectCount };
    this.#added.sizeBytes -= addedBefore.sizeBytes;
    this.#added.objectCount -= addedBefore.objectCount;
  }
}
