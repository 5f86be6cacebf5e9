import * as v from 'valibot';
import { absolutePath, count } from '../../shared/config/fields.ts';
import type { Problem } from '../../shared/errors.ts';
import { checkPrefix, KEY_MAX_BYTES } from '../../shared/objects/key.ts';
import { OBJECT_MAX_BYTES } from '../../shared/objects/store.ts';

/** A volume's keys below the prefix take up to 100 bytes. */
const PREFIX_MAX_BYTES = KEY_MAX_BYTES - 112;
/** Volumes of one guest, and a store for each; a longer list is a mistake. */
export const GRANTS_MAX = 64;
export const STORES_MAX = 64;

/** What one guest's object streams may use at a time; apart from every other guest. */
export const DEFAULT_OBJECT_LIMITS = {
  /** At the store at once: S3 answers in some 20 ms, so that is 1,600 requests a second. */
  concurrency: 32,
  /** Behind them, on all streams. */
  waiting: 256,
  /** Bodies on their way: four of the largest. */
  memoryBytes: 64 * 1024 * 1024,
} as const;

const STORE_NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;

const url = v.pipe(
  v.string('an http or https URL'),
  v.check(
    (text) => /^https?:\/\/[^/\s]+\/?$/.test(text) && URL.canParse(text),
    'an http or https URL without a path',
  ),
);

/** `aws`: the SDK's own chain on this host: environment, shared files, container, instance role. */
const credentials = v.union(
  [
    v.literal('aws'),
    v.strictObject({
      accessKeyId: v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,128}$/, 'an access key id')),
      /** The secret alone in a file that only this user can read; never in this configuration. */
      secretAccessKeyFile: absolutePath,
    }),
  ],
  'aws, or accessKeyId and secretAccessKeyFile',
);

const s3 = v.strictObject({
  bucket: v.pipe(v.string('the name of a bucket'), v.regex(BUCKET, 'the name of a bucket')),
  region: v.pipe(
    v.string('a region, as eu-central-1'),
    v.regex(/^[a-z0-9-]{1,40}$/, 'a region, as eu-central-1'),
  ),
  endpoint: v.optional(url),
  forcePathStyle: v.optional(v.boolean('true or false'), false),
  credentials,
  maxSockets: v.optional(count(1, 4096)),
  requestTimeoutMs: v.optional(count(1000, 600_000)),
});

const cache = v.strictObject({
  path: absolutePath,
  maxBytes: count(OBJECT_MAX_BYTES, Number.MAX_SAFE_INTEGER),
});

const store = v.pipe(
  v.strictObject({
    directory: v.optional(v.strictObject({ path: absolutePath })),
    s3: v.optional(s3),
    /** Ciphertext that was read once, on a disk of the parent. */
    cache: v.optional(cache),
  }),
  v.check(
    (entry) => (entry.directory === undefined) !== (entry.s3 === undefined),
    'exactly one of directory and s3',
  ),
);

/** `stores: NAME: {directory: {path}}` or `{s3: {…}}`. */
export const storesSchema = v.pipe(
  v.record(
    v.pipe(v.string(), v.regex(STORE_NAME, 'a name of a-z, 0-9 and -, at most 63 characters')),
    store,
    'stores, as NAME: {…}',
  ),
  v.check((stores) => Object.keys(stores).length <= STORES_MAX, `at most ${STORES_MAX} stores`),
);

const prefix = v.pipe(
  v.string('a prefix of keys that ends with a slash'),
  v.maxLength(PREFIX_MAX_BYTES, `a prefix of at most ${PREFIX_MAX_BYTES} characters`),
  v.check(isGrantPrefix, 'a prefix of keys that ends with a slash, as tenant-a/volumes/'),
);

const grant = v.strictObject({
  store: v.string('the name of a store'),
  prefix,
  maxBytes: v.optional(count(1, Number.MAX_SAFE_INTEGER)),
  maxObjects: v.optional(count(1, Number.MAX_SAFE_INTEGER)),
  /** Another guest has it too, which says so as well: an instance and the one that takes over from it. */
  shared: v.optional(v.boolean('true or false'), false),
});

/** `objects:` of one guest: what it may use, and nothing else. */
export const grantsSchema = v.pipe(v.array(grant), v.maxLength(GRANTS_MAX, `at most ${GRANTS_MAX} grants`));

/** `objectLimits:` of one guest. */
export const objectLimitsSchema = v.strictObject({
  concurrency: v.optional(count(1, 1024), DEFAULT_OBJECT_LIMITS.concurrency),
  waiting: v.optional(count(1, 65_536), DEFAULT_OBJECT_LIMITS.waiting),
  memoryBytes: v.optional(count(OBJECT_MAX_BYTES, 2 ** 40), DEFAULT_OBJECT_LIMITS.memoryBytes),
});

export type StoreConfig = v.InferOutput<typeof store>;
export type StoresConfig = v.InferOutput<typeof storesSchema>;
export type GrantConfig = v.InferOutput<typeof grant>;
export type ObjectLimits = v.InferOutput<typeof objectLimitsSchema>;

/** The part of the parent's configuration that is about objects. */
export interface ObjectsConfig {
  readonly stores: StoresConfig;
  readonly guests: Readonly<Record<string, { readonly objects: readonly GrantConfig[] }>>;
}

function isGrantPrefix(text: string): boolean {
  if (!text.endsWith('/')) return false;
  try {
    checkPrefix(text);
    return true;
  } catch {
    return false;
  }
}

interface Placed {
  readonly path: string;
  readonly guest: string;
  readonly grant: GrantConfig;
}

/** What no single entry can tell: stores that are not there or one twice, and grants that reach into each other. */
export function findObjectConflicts(config: ObjectsConfig): readonly Problem[] {
  const placed = Object.entries(config.guests).flatMap(([guest, { objects }]) =>
    objects.map(
      (entry, index): Placed => ({ path: `guests.${guest}.objects[${index}]`, guest, grant: entry }),
    ),
  );
  return [
    ...sameFolders(config.stores),
    ...unknownStores(config.stores, placed),
    ...overlaps(config.stores, placed),
  ];
}

function sameFolders(stores: StoresConfig): Problem[] {
  const seen = new Map<string, string>();
  const problems: Problem[] = [];
  for (const [name, entry] of Object.entries(stores)) {
    const folders = [
      { path: `stores.${name}.directory.path`, folder: entry.directory?.path },
      { path: `stores.${name}.cache.path`, folder: entry.cache?.path },
    ];
    for (const { path: at, folder } of folders) {
      if (folder === undefined) continue;
      const other = seen.get(folder);
      if (other !== undefined)
        problems.push({ path: at, found: folder, expected: `a folder that ${other} does not use` });
      seen.set(folder, at);
    }
  }
  return problems;
}

function unknownStores(stores: StoresConfig, placed: readonly Placed[]): Problem[] {
  const names = Object.keys(stores);
  return placed
    .filter(({ grant: entry }) => !Object.hasOwn(stores, entry.store))
    .map(({ path: at, grant: entry }) => ({
      path: `${at}.store`,
      found: entry.store,
      expected: names.length === 0 ? 'a store of stores, which is empty' : `one of ${names.join(', ')}`,
    }));
}

/** A prefix inside another sorts right behind it, or behind others inside the same. */
function overlaps(stores: StoresConfig, placed: readonly Placed[]): Problem[] {
  const sorted = [...placed].sort((left, right) => (left.grant.prefix < right.grant.prefix ? -1 : 1));
  const problems: Problem[] = [];
  let open: Placed[] = [];
  for (const one of sorted) {
    open = open.filter(({ grant: outer }) => one.grant.prefix.startsWith(outer.prefix));
    for (const other of open) {
      if (mayOverlap(stores, one, other)) continue;
      const expected = `a prefix apart from ${other.path} (${other.grant.prefix})`;
      problems.push({ path: `${one.path}.prefix`, found: one.grant.prefix, expected });
    }
    open.push(one);
  }
  return problems;
}

/** Two guests may share what both call shared; one guest's key leads to one store. */
function mayOverlap(stores: StoresConfig, one: Placed, other: Placed): boolean {
  if (one.guest === other.guest) return false;
  const place = placeOf(stores, one.grant.store);
  if (place === undefined || place !== placeOf(stores, other.grant.store)) return true;
  return one.grant.shared && other.grant.shared;
}

/** Two stores may be one bucket, with other credentials. */
function placeOf(stores: StoresConfig, name: string): string | undefined {
  const entry = stores[name];
  if (entry?.directory !== undefined) return entry.directory.path;
  return entry?.s3 && `${entry.s3.endpoint ?? entry.s3.region} ${entry.s3.bucket}`;
}
