import { PosternError } from '../../shared/errors.ts';
import type { Volume } from './engine.ts';
import { findOldWraps, repackAll } from './gc.ts';
import { KEY_BYTES } from './keys.ts';
import { GENERATIONS_MAX } from './limits.ts';
import type { Progress } from './progress.ts';

const WRAP_NONCE_BYTES = 24;

export interface RekeyReport {
  readonly generation: number;
  /** Everything reachable is sealed under it, and the keys before it are destroyed. */
  readonly isDrained: boolean;
}

/**
 * New keys for everything that is written from now on, then the old data written anew. What snapshots pin stays under its old
 * keys, which then cannot be destroyed: `isDrained` false.
 */
export async function rekey(volume: Volume, onProgress?: Progress): Promise<RekeyReport> {
  const { ring, sealer, committer } = volume.parts;
  const { generation, key } = await newKeys(volume);
  ring.add(generation, key, ring.baseKey);
  sealer.generation = generation;
  await committer.commit({});
  return { generation, isDrained: await drainOldKeys(volume, onProgress) };
}

/**
 * Keys of the next generation, stored. One whose name is taken is passed over: a rekey that ended early, or a fenced writer's late
 * PUT, left a wrap there whose keys seal nothing that is reachable. Deleting it to use the name again would be a mistake: a
 * DELETE that comes late would then destroy the keys of this volume.
 */
async function newKeys(volume: Volume): Promise<{ readonly generation: number; readonly key: Buffer }> {
  const { ring, sealer, objects, environment } = volume.parts;
  const before = await sealer.head();
  for (let generation = before.generation + 1; ; generation += 1) {
    if (generation - before.oldestGeneration >= GENERATIONS_MAX) {
      throw new PosternError('ERR_VOLUME_LIMIT', `${GENERATIONS_MAX} generations of keys are in use`);
    }
    const key = environment.random(KEY_BYTES);
    const wrap = ring.wrap(generation, key, environment.random(WRAP_NONCE_BYTES));
    if ((await objects.claim(wrap.name, wrap.bytes)) === 'stored') return { generation, key };
  }
}

/** Goes on where a rekey was interrupted. True when only the newest generation is left. */
export async function drainOldKeys(volume: Volume, onProgress?: Progress): Promise<boolean> {
  const { sealer, committer } = volume.parts;
  await repackAll(volume, onProgress ? { onProgress } : {});
  // The tail is read by its own records' keys: after this checkpoint it begins past the last of the old ones.
  await volume.parts.checkpointer.request();
  const { generation, oldestGeneration } = await sealer.head();
  const oldest = await oldestReachable(volume, generation);
  if (oldest > oldestGeneration) {
    onProgress?.({ step: 'destroying the old keys' });
    const seq = committer.nextSeq;
    await committer.commit({ oldestGeneration: oldest });
    await volume.parts.anchored(seq);
  }
  for (const { name } of await findOldWraps(volume)) await volume.parts.objects.delete(name);
  return oldest === generation;
}

async function oldestReachable(volume: Volume, newest: number): Promise<number> {
  const { index, sealer, checkpointer } = volume.parts;
  let oldest = newest;
  for await (const { entry } of index.segments(sealer.nextSegment))
    oldest = Math.min(oldest, entry.generation);
  for (const { manifest } of checkpointer.snapshots) {
    for (const { entry } of manifest) oldest = Math.min(oldest, entry.generation);
  }
  return oldest;
}
