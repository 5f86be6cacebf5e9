import { createHash } from 'node:crypto';
import type { Anchor } from '../../guest/counter/anchor.ts';
import type { CreateOptions, VolumeAccess } from '../../guest/volume/create.ts';
import type { VolumeEnvironment, VolumeLog } from '../../guest/volume/environment.ts';
import type { KeyProvider } from '../../guest/volume/key-provider.ts';
import { BLOCK_BYTES, DEFAULT_LIMITS, type VolumeLimits } from '../../guest/volume/limits.ts';
import { type Clock, VirtualClock } from '../../shared/objects/clock.ts';
import { createMemoryStore, MemoryObjects } from '../../shared/objects/memory.ts';
import { type Random, seededRandom } from '../../shared/objects/random.ts';
import type { ObjectStore } from '../../shared/objects/store.ts';
import { AnchorHeads, MemoryAnchor } from './memory-anchor.ts';

/** Everything small, so that a few hundred operations meet every path: spills, checkpoints, repacking, evictions. */
export const SMALL_LIMITS: VolumeLimits = {
  ...DEFAULT_LIMITS,
  dirtyBytes: 48 * BLOCK_BYTES,
  spillBytes: 16 * BLOCK_BYTES,
  segmentBytes: 16 * BLOCK_BYTES,
  inlineBytes: 8 * BLOCK_BYTES,
  pipelineCommits: 3,
  spillsPerCommit: 3,
  largePuts: 2,
  checkpointCommits: 12,
  checkpointBlocks: 96,
  pageCacheBytes: 40 * BLOCK_BYTES,
  readCacheBytes: 24 * BLOCK_BYTES,
  readAheadBytes: 16 * BLOCK_BYTES,
  readBytes: 16 * BLOCK_BYTES,
  readRequests: 3,
  deleteGraceMs: 5000,
};

export const ROOT_KEY: KeyProvider = { kind: 'test', rootKey: async () => Buffer.alloc(32, 7) };

const QUIET: VolumeLog = { info() {}, warn() {}, error() {} };

/** Bytes from a seed, in place of the system's random generator. */
export function seededBytes(random: Random): (length: number) => Buffer {
  return (length) => {
    const seed = Buffer.from(Float64Array.of(random(), random()).buffer);
    const bytes: Buffer[] = [];
    for (let count = 0; count * 32 < length; count += 1) {
      bytes.push(createHash('sha256').update(seed).update(String(count)).digest());
    }
    return Buffer.concat(bytes).subarray(0, length);
  };
}

export function virtualEnvironment(clock: Clock, random: Random, log: VolumeLog = QUIET): VolumeEnvironment {
  return {
    clock,
    dateMs: () => Math.floor(clock.nowMs()),
    random: seededBytes(random),
    jitter: random,
    pause: () => Promise.resolve(),
    log,
  };
}

/** A store, an anchor and a clock without any fault, for tests of what the engine does when all is well. */
export class World {
  readonly clock = new VirtualClock();
  readonly objects = new MemoryObjects();
  readonly heads = new AnchorHeads();
  readonly random: Random;
  store: ObjectStore = createMemoryStore(this.objects);
  anchor: Anchor = new MemoryAnchor(this.heads);
  limits: VolumeLimits = SMALL_LIMITS;

  constructor(seed = 1) {
    this.random = seededRandom(seed);
  }

  access(): VolumeAccess {
    return {
      store: this.store,
      prefix: 'vol',
      name: 'data',
      keyProvider: ROOT_KEY,
      anchor: this.anchor,
      environment: virtualEnvironment(this.clock, this.random),
      limits: this.limits,
    };
  }

  creation(sizeBytes: number): CreateOptions {
    return { ...this.access(), sizeBytes, mode: { kind: 'strict' } };
  }

  /** Runs to the end, whatever time that takes on the world's clock. */
  run<T>(work: () => Promise<T>): Promise<T> {
    return this.clock.run(work());
  }
}
