import { isPosternError } from '../errors.ts';
import { recycleBody } from './bodies.ts';
import { isRetryable } from './failure.ts';
import { OBJECT_MAX_BYTES, type ObjectStore, type StoreOptions } from './store.ts';

/**
 * What is under the key now: these bytes, other bytes, or nothing. The one way to settle a PUT whose answer was
 * ambiguous, or that found something there.
 * @throws PosternError what `get` throws
 */
export async function compareObject(
  store: ObjectStore,
  key: string,
  bytes: Buffer,
  options?: StoreOptions,
): Promise<'same' | 'different' | 'absent'> {
  const head = await store.head(key, options);
  if (head === undefined) return 'absent';
  if (head.sizeBytes !== bytes.length || bytes.length > OBJECT_MAX_BYTES) return 'different';
  if (bytes.length === 0) return 'same';
  const found = await store.get(key, { ...options, range: { offset: 0, length: bytes.length } });
  if (found === undefined) return 'absent';
  const same = found.equals(bytes);
  recycleBody(found);
  return same ? 'same' : 'different';
}

/**
 * Puts an object and settles every doubt: `stored` means that the key holds exactly these bytes, whoever put them
 * there and however many answers were lost; `taken` that it holds others. It tries once; put a retrying store below
 * it to try on.
 * @throws PosternError ERR_STORE_AMBIGUOUS when the doubt could not be settled, else what the store throws
 */
export async function claimObject(
  store: ObjectStore,
  key: string,
  bytes: Buffer,
  options?: StoreOptions,
): Promise<'stored' | 'taken'> {
  let doubt: unknown;
  try {
    if ((await store.putIfAbsent(key, bytes, options)) === 'created') return 'stored';
  } catch (error) {
    if (!isPosternError(error, 'ERR_STORE_AMBIGUOUS')) throw error;
    doubt = error;
  }
  const found = await compareObject(store, key, bytes, options).catch((error: unknown) => {
    throw doubt !== undefined && isRetryable(error) ? doubt : error;
  });
  if (found === 'same') return 'stored';
  if (found === 'different') return 'taken';
  // `exists`, and then gone: only a delete explains it, and the caller alone knows whether that is an attack.
  if (doubt !== undefined) throw doubt;
  return 'taken';
}
