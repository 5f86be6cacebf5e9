import * as v from 'valibot';
import { absolutePath, count } from '../../shared/config/fields.ts';
import type { Problem } from '../../shared/errors.ts';
import { isPosternError } from '../../shared/errors.ts';
import { checkKey } from '../../shared/objects/key.ts';
import type { FlushMode } from '../volume/header.ts';
import type { KeyProviderConfig } from '../volume/key-provider.ts';
import { OUTAGE_DEFAULT_MS } from '../volume/limits.ts';

/** A guest with more disks than this is one nobody can keep in mind; each takes memory of its own. */
export const VOLUMES_MAX = 16;
const MIB = 1024 * 1024;
/** Two segments of 4 MiB in flight and a page of everything; less is no disk but a nuisance. */
export const MEMORY_MIN_BYTES = 64 * MIB;
export const MEMORY_DEFAULT_BYTES = 256 * MIB;
const MEMORY_MAX_BYTES = 64 * 1024 * MIB;
/** One attempt at the store, and another. */
const OUTAGE_MIN_MS = 30_000;
/** A day. Whoever would wait longer has no use for the disk. */
const OUTAGE_MAX_MS = 86_400_000;
/** A volume's own keys below its prefix take up to 100 bytes of a key's 512. */
const PREFIX_MAX_CHARS = 400;

const VOLUME_NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
export const DEVICE = /^\/dev\/nbd(\d{1,4})$/;

const ENVIRONMENT_NAME = 'the name of an environment variable, A-Z, 0-9 and _';

/** Exactly one way to the root key, said here and nowhere else: never chosen by what happens to be missing. */
const key = v.pipe(
  v.union(
    [
      v.strictObject({ file: absolutePath }),
      v.strictObject({ env: v.pipe(v.string(), v.regex(/^[A-Z][A-Z0-9_]{0,63}$/, ENVIRONMENT_NAME)) }),
      v.strictObject({ passphrase: absolutePath }),
    ],
    'one of {file: PATH}, {env: VARIABLE}, {passphrase: PATH}',
  ),
  v.transform((found): KeyProviderConfig => {
    if ('file' in found) return { kind: 'file', path: found.file };
    if ('env' in found) return { kind: 'env', variable: found.env };
    return { kind: 'passphrase', path: found.passphrase };
  }),
);

const mode = v.pipe(
  v.union(
    [
      v.picklist(['strict', 'none']),
      v.strictObject({
        lazy: v.strictObject({ maxMs: count(1, 3_600_000), maxCommits: count(1, 65_536) }),
      }),
    ],
    'strict, {lazy: {maxMs, maxCommits}} or none',
  ),
  v.transform(
    (found): FlushMode => (typeof found === 'string' ? { kind: found } : { kind: 'lazy', ...found.lazy }),
  ),
);

const nbd = v.pipe(
  v.strictObject({
    socket: v.optional(absolutePath),
    device: v.optional(
      v.union(
        [v.literal('auto'), v.pipe(v.string(), v.regex(DEVICE))],
        'a device such as /dev/nbd0, or auto',
      ),
    ),
  }),
  v.check(({ socket, device }) => socket !== undefined || device !== undefined, 'a socket, a device or both'),
);

const prefix = v.pipe(
  v.string('the beginning of its keys, without a slash at the end'),
  v.maxLength(PREFIX_MAX_CHARS, `at most ${PREFIX_MAX_CHARS} characters`),
  v.check(isPrefix, 'the beginning of its keys, as web/data, without a slash at the end'),
);

const volume = v.strictObject({
  prefix: v.optional(prefix),
  key,
  anchor: v.optional(v.strictObject({ file: absolutePath })),
  mode: v.optional(mode, 'strict'),
  memoryBytes: v.optional(count(MEMORY_MIN_BYTES, MEMORY_MAX_BYTES), MEMORY_DEFAULT_BYTES),
  outageTimeoutMs: v.optional(count(OUTAGE_MIN_MS, OUTAGE_MAX_MS), OUTAGE_DEFAULT_MS),
  nbd,
  takeover: v.optional(v.boolean('true or false'), false),
});

/** `volumes: NAME: {…}` of the guest's configuration: part of what is measured. */
export const volumesSchema = v.pipe(
  v.record(
    v.pipe(v.string(), v.regex(VOLUME_NAME, 'a name of a-z, 0-9 and -, at most 63 characters')),
    volume,
    'volumes, as NAME: {…}',
  ),
  v.check((found) => Object.keys(found).length <= VOLUMES_MAX, `at most ${VOLUMES_MAX} volumes`),
);

export type VolumeConfig = v.InferOutput<typeof volume>;
export type VolumesConfig = v.InferOutput<typeof volumesSchema>;

/** Where the volume's keys begin, without a slash at the end. */
export function prefixOf(name: string, config: VolumeConfig): string {
  return config.prefix ?? name;
}

/** What no single entry can tell; both entries are named. */
export function volumeProblems(volumes: VolumesConfig): Problem[] {
  const entries = Object.entries(volumes);
  const problems: Problem[] = [];
  for (const [name, { anchor, mode: flushMode }] of entries) {
    if (anchor === undefined && flushMode.kind !== 'none') {
      const expected = `{file: PATH}, as volumes.${name}.mode is ${flushMode.kind}`;
      problems.push({ path: `volumes.${name}.anchor`, expected, found: 'nothing' });
    }
    if (anchor !== undefined && flushMode.kind === 'none') {
      const expected = `none, as volumes.${name}.mode is none and nothing would be anchored`;
      problems.push({ path: `volumes.${name}.anchor`, expected, found: 'an anchor' });
    }
  }
  const devices = ({ nbd: { device } }: VolumeConfig) => (device === 'auto' ? undefined : device);
  problems.push(...shared(entries, 'nbd.socket', ({ nbd: { socket } }) => socket));
  problems.push(...shared(entries, 'nbd.device', devices));
  for (const [index, [name, config]] of entries.entries()) {
    for (const [otherName, other] of entries.slice(0, index)) {
      const [one, two] = [`${prefixOf(name, config)}/`, `${prefixOf(otherName, other)}/`];
      if (!one.startsWith(two) && !two.startsWith(one)) continue;
      const expected = `keys apart from volumes.${otherName} (${two})`;
      problems.push({ path: `volumes.${name}.prefix`, expected, found: one });
    }
  }
  return problems;
}

function shared(
  entries: readonly [string, VolumeConfig][],
  field: string,
  read: (config: VolumeConfig) => string | undefined,
): Problem[] {
  const first = new Map<string, string>();
  return entries.flatMap(([name, config]) => {
    const value = read(config);
    if (value === undefined) return [];
    const other = first.get(value);
    if (other === undefined) {
      first.set(value, name);
      return [];
    }
    const expected = `another than volumes.${other}.${field}`;
    return [{ path: `volumes.${name}.${field}`, expected, found: value }];
  });
}

function isPrefix(text: string): boolean {
  try {
    checkKey(text);
    return true;
  } catch (error) {
    if (!isPosternError(error)) throw error;
    return false;
  }
}
