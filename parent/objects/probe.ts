import { randomBytes } from 'node:crypto';
import { isPosternError, PosternError } from '../../shared/errors.ts';
import type { ObjectStore } from '../../shared/objects/store.ts';

/** A store that checks and then writes loses most races of eight, and all three rounds of them almost never. */
const RACERS = 8;
const ROUNDS = 3;
const ADVICE =
  'use a store that honours If-None-Match: * on PUT (AWS S3, Ceph, MinIO, R2), or a directory store';

/**
 * Tries whether a store creates objects once and only once, alone and in a race, and reads back what was written. Its
 * objects, under `prefix` (which ends with a slash), are deleted again.
 * @throws PosternError ERR_STORE_UNSUITABLE when it must not be used; what the store throws when it cannot be tried
 */
export async function probeStore(store: ObjectStore, prefix: string): Promise<void> {
  const stem = `${prefix}postern-probe-${randomBytes(8).toString('hex')}`;
  const used: string[] = [];
  const fresh = (): string => {
    const key = `${stem}-${used.length}`;
    used.push(key);
    return key;
  };
  try {
    await probeCreateOnly(store, fresh());
    for (let round = 0; round < ROUNDS; round += 1) await probeRace(store, fresh());
  } finally {
    // What cannot be deleted now is a few bytes under a name that says what it is.
    await Promise.allSettled(used.map((key) => store.delete(key)));
  }
}

async function probeCreateOnly(store: ObjectStore, key: string): Promise<void> {
  const [first, second] = [randomBytes(64), randomBytes(64)];
  if ((await store.get(key)) !== undefined) throw unsuitable('it has an object that nobody wrote');
  if ((await putOf(store, key, first)) === 'exists') throw unsuitable('it says "exists" of a new object');
  if ((await putOf(store, key, second)) === 'created') throw unsuitable('it replaces an object that exists');
  if (!(await store.get(key))?.equals(first)) throw unsuitable('it does not read back what was written');
  const part = await store.get(key, { range: { offset: 10, length: 20 } });
  if (!part?.equals(first.subarray(10, 30))) throw unsuitable('it does not read ranges');
  await store.delete(key);
  if ((await store.head(key)) !== undefined) throw unsuitable('it shows an object that was deleted');
}

async function probeRace(store: ObjectStore, key: string): Promise<void> {
  const bodies = Array.from({ length: RACERS }, () => randomBytes(64));
  const answers = await Promise.all(bodies.map((body) => putOf(store, key, body)));
  const winners = bodies.filter((_, index) => answers[index] === 'created');
  if (winners.length > 1)
    throw unsuitable(`${winners.length} of ${RACERS} racing writers created one object`);
  const found = await store.get(key);
  // With no clear winner the object is one whose writer was left in doubt.
  const right =
    found !== undefined && (winners[0] ?? bodies.find((body) => body.equals(found)))?.equals(found);
  if (!right) throw unsuitable('a race left an object that is not its winner’s');
}

async function putOf(
  store: ObjectStore,
  key: string,
  bytes: Buffer,
): Promise<'created' | 'exists' | 'doubt'> {
  try {
    return await store.putIfAbsent(key, bytes);
  } catch (error) {
    if (isPosternError(error, 'ERR_STORE_AMBIGUOUS')) return 'doubt';
    throw error;
  }
}

function unsuitable(what: string): PosternError {
  return new PosternError('ERR_STORE_UNSUITABLE', `the store cannot hold volumes: ${what}; ${ADVICE}`);
}
