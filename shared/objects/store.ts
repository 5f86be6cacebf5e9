/**
 * What both ends of the relay, and every decorator, implement. Objects are immutable: written once, read in ranges,
 * deleted. Keys are `/`-separated segments of safe ASCII characters, none of them empty, `.` or `..` (see key.ts).
 *
 * Failure contract: `undefined` means that the store says "no such object" (which a caller never reads as zeros or
 * as a first boot); a throw of ERR_STORE_UNAVAILABLE means not done and worth a retry; ERR_STORE_AMBIGUOUS means that
 * a PUT may or may not have happened (the caller reads the object and compares); ERR_STORE_DENIED, ERR_STORE_LIMIT
 * and ERR_STORE_CORRUPT are final. A caller that gives up by its signal gets ERR_STORE_UNAVAILABLE, or
 * ERR_STORE_AMBIGUOUS from a PUT that was under way.
 *
 * What is answered is durable: `created` when the object outlives a power cut, and an object that `exists`, `get` or
 * `head` shows has outlived its own.
 */
export interface ObjectStore {
  /**
   * `exists`: an object with that key was there before; whether it has the same bytes is the caller's question. The
   * bytes are not copied: after a failure they may still be on their way, and are not written to again.
   */
  putIfAbsent(key: string, bytes: Buffer, options?: StoreOptions): Promise<'created' | 'exists'>;
  /**
   * The whole object, or exactly `range.length` bytes of it; a range behind the object's end, or a shorter answer, is
   * ERR_STORE_CORRUPT. The caller owns the buffer, and may give it to `recycleBody` when done (bodies.ts). Give the range
   * wherever the length is known: without one, memory for the largest object is set aside at both ends.
   */
  get(key: string, options?: StoreOptions & { readonly range?: ByteRange }): Promise<Buffer | undefined>;
  head(key: string, options?: StoreOptions): Promise<{ readonly sizeBytes: number } | undefined>;
  /** One page in ascending byte order of keys, those after `after` only. `prefix` need not end at a slash. */
  list(prefix: string, options?: StoreOptions & ListOptions): Promise<ObjectPage>;
  /** Idempotent: deleting what is not there succeeds. */
  delete(key: string, options?: StoreOptions): Promise<void>;
}

export interface StoreOptions {
  readonly signal?: AbortSignal;
}

/** At least one byte. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

export interface ListOptions {
  readonly after?: string;
  /** Default and at most LIST_MAX_KEYS. */
  readonly limit?: number;
}

export interface ObjectPage {
  readonly objects: readonly { readonly key: string; readonly sizeBytes: number }[];
  /** Continue with `after` set to the last key. */
  readonly truncated: boolean;
}

/** What S3 returns in one page. */
export const LIST_MAX_KEYS = 1000;
/** A 16 MiB segment with its frame tags and header; no object is larger. */
export const OBJECT_MAX_BYTES = 17 * 1024 * 1024;
