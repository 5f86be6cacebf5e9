import { PosternError } from '../errors.ts';
import { corrupt, throwIfAborted } from './failure.ts';
import { checkKey, checkPrefix, isKey } from './key.ts';
import {
  type ByteRange,
  LIST_MAX_KEYS,
  type ListOptions,
  OBJECT_MAX_BYTES,
  type ObjectPage,
  type ObjectStore,
  type StoreOptions,
} from './store.ts';

/**
 * Holds both sides to the interface: what a caller asks (keys, sizes, ranges) before the store sees it, and what the
 * store answers (lengths, order, progress) before the caller sees it. Every store's factory ends in this.
 */
export function checkedStore(inner: ObjectStore): ObjectStore {
  return {
    async putIfAbsent(key, bytes, options) {
      checkKey(key);
      checkObjectSize(bytes.length);
      throwIfAborted(options?.signal);
      return inner.putIfAbsent(key, bytes, options);
    },
    async get(key, options) {
      checkKey(key);
      if (options?.range !== undefined) checkRange(options.range);
      throwIfAborted(options?.signal);
      const bytes = await inner.get(key, options);
      if (bytes !== undefined) checkBody(key, bytes, options?.range);
      return bytes;
    },
    async head(key, options) {
      checkKey(key);
      throwIfAborted(options?.signal);
      const head = await inner.head(key, options);
      if (head !== undefined) checkAnsweredSize(key, head.sizeBytes);
      return head;
    },
    async list(prefix, options) {
      checkListing(prefix, options);
      throwIfAborted(options?.signal);
      const page = await inner.list(prefix, options);
      checkPage(page, prefix, options);
      return page;
    },
    async delete(key, options) {
      checkKey(key);
      throwIfAborted(options?.signal);
      return inner.delete(key, options);
    },
  };
}

/** @throws PosternError ERR_STORE_LIMIT */
export function checkObjectSize(sizeBytes: number): void {
  if (sizeBytes > OBJECT_MAX_BYTES) {
    throw new PosternError('ERR_STORE_LIMIT', `object of ${sizeBytes} bytes, over ${OBJECT_MAX_BYTES}`);
  }
}

/**
 * At least one byte (S3 cannot say an empty range), within the largest object.
 * @throws PosternError ERR_STORE_LIMIT
 */
export function checkRange(range: ByteRange): void {
  const { offset, length } = range;
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  if (!whole || offset < 0 || length < 1 || offset + length > OBJECT_MAX_BYTES) {
    throw new PosternError('ERR_STORE_LIMIT', `range of ${length} bytes at ${offset}`);
  }
}

/** @throws PosternError ERR_STORE_DENIED, ERR_STORE_LIMIT */
export function checkListing(prefix: string, options: ListOptions | undefined): void {
  checkPrefix(prefix);
  if (options?.after !== undefined) checkPrefix(options.after);
  const limit = options?.limit ?? LIST_MAX_KEYS;
  if (!Number.isSafeInteger(limit) || limit < 1 || limit > LIST_MAX_KEYS) {
    throw new PosternError('ERR_STORE_LIMIT', `a page of ${limit} keys`);
  }
}

function checkBody(key: string, bytes: Buffer, range: ByteRange | undefined): void {
  const due = range?.length;
  if (due === undefined) checkAnsweredSize(key, bytes.length);
  else if (bytes.length !== due) throw corrupt(`${key}: ${bytes.length} bytes for a range of ${due}`);
}

function checkAnsweredSize(key: string, sizeBytes: number): void {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes > OBJECT_MAX_BYTES) {
    throw corrupt(`${key}: an object of ${sizeBytes} bytes`);
  }
}

/**
 * A page that breaks the interface, one that would never end a walk included.
 * @throws PosternError ERR_STORE_CORRUPT
 */
export function checkPage(page: ObjectPage, prefix: string, options?: StoreOptions & ListOptions): void {
  if (page.objects.length > (options?.limit ?? LIST_MAX_KEYS)) {
    throw corrupt(`a page of ${page.objects.length} keys, more than asked for`);
  }
  if (page.truncated && page.objects.length === 0) throw corrupt('a page that is empty and yet not the last');
  let previous = options?.after;
  for (const { key, sizeBytes } of page.objects) {
    if (!isKey(key) || !key.startsWith(prefix)) throw corrupt(`a page with a key outside ${prefix}`);
    // Keys are ASCII, so that the order of strings is the order of bytes.
    if (previous !== undefined && key <= previous) throw corrupt(`a page of ${prefix} out of order`);
    checkAnsweredSize(key, sizeBytes);
    previous = key;
  }
}
