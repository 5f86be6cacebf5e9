import { isPosternError, PosternError } from '../../../shared/errors.ts';
import { listAll } from '../../../shared/objects/list-all.ts';
import { retryingStore } from '../../../shared/objects/retry.ts';
import { HEADER_NAME, WRAP_PREFIX } from '../../volume/names.ts';
import { type CommandContext, type NamedVolume, withAttached } from './context.ts';
import { assertDetached } from './maintain.ts';
import { formatSize } from './size.ts';

/** Twice what the largest volume can have; a store that lists more never ends. */
const OBJECTS_MAX = 64 * 1024 * 1024;

export interface DeleteFlags {
  readonly yes?: boolean;
  readonly force?: boolean;
}

/**
 * Deletes every object of a volume: the wrapped keys first, without which the rest is noise for good, the header last, so
 * that a deletion that was cut short is found and can go on.
 */
export async function deleteVolume(
  volume: NamedVolume,
  context: CommandContext,
  { yes, force }: DeleteFlags,
): Promise<void> {
  const { name, access } = volume;
  const { dryRun, print, progress } = context;
  if (!dryRun && yes !== true) {
    throw new PosternError(
      'ERR_CONFIG_INVALID',
      `deleting volume ${name} cannot be undone: add --yes, or --dry-run`,
    );
  }
  if (force !== true) await shutOut(volume, context);
  const store = retryingStore(access.store);
  const names: string[] = [];
  let bytes = 0;
  const prefix = `${access.prefix}/`;
  for await (const { key, sizeBytes } of listAll(store, prefix, { maxKeys: OBJECTS_MAX })) {
    names.push(key.slice(prefix.length));
    bytes += sizeBytes;
  }
  if (names.length === 0) {
    throw new PosternError('ERR_VOLUME_NOT_FOUND', `there are no objects under ${prefix}`);
  }
  const ordered = names.sort((left, right) => rank(left) - rank(right));
  for (const [index, object] of dryRun ? [] : ordered.entries()) {
    await store.delete(prefix + object);
    progress(`${index + 1} of ${names.length} objects deleted`);
  }
  const done = `${names.length} objects, ${formatSize(bytes)}`;
  print({ version: 1, volume: name, objects: names.length, bytes, dryRun }, [
    dryRun
      ? `would delete ${done} of volume ${name}`
      : `deleted ${done} of volume ${name}; its anchor keeps the last state`,
  ]);
}

/** Whoever has it attached loses it now, and not in the middle of a write. */
async function shutOut(volume: NamedVolume, context: CommandContext): Promise<void> {
  try {
    await assertDetached(volume, context);
    if (context.takeover && !context.dryRun) await withAttached(volume, context, async () => {});
  } catch (error) {
    const unreadable = isPosternError(error) && UNREADABLE.has(error.code);
    if (!unreadable) throw error;
    const text = `volume ${volume.name} cannot be read (${error.message}); --force deletes what is there all the same`;
    throw new PosternError(error.code, text, { cause: error });
  }
}

const UNREADABLE: ReadonlySet<string> = new Set([
  'ERR_VOLUME_NOT_FOUND',
  'ERR_VOLUME_KEY',
  'ERR_VOLUME_VERSION',
  'ERR_VOLUME_CORRUPT',
  'ERR_VOLUME_MISSING',
  'ERR_VOLUME_STALE',
  'ERR_ANCHOR_UNKNOWN',
]);

function rank(name: string): number {
  if (name.startsWith(WRAP_PREFIX)) return 0;
  return name === HEADER_NAME ? 2 : 1;
}
