import { isPosternError } from '../../shared/errors.ts';
import type { ObjectPage } from '../../shared/objects/store.ts';
import { attachVolume } from './attach.ts';
import type { VolumeAccess } from './create.ts';
import { decodeVolumeHeader, HEADER_BYTES } from './header.ts';
import { DEFAULT_LIMITS } from './limits.ts';
import { deletionName, HEADER_NAME, WRAP_PREFIX } from './names.ts';
import { VolumeObjects } from './objects.ts';
import type { Progress } from './progress.ts';
import { Semaphore } from './semaphore.ts';

export interface DeleteReport {
  readonly objects: number;
  readonly bytes: number;
}

/** DELETEs at once: far below what a relay lets a guest have under way. */
const PARALLEL_DELETES = 16;

/**
 * The first step of a deletion, and the last moment at which it can fail with nothing lost: an attach like any other, so that
 * the anchor decides between it and all others, whose commit says that nobody may attach the volume any more.
 * @throws what attaching throws; nothing of the volume is gone then
 */
export async function takeForDeletion(access: VolumeAccess, takeover: boolean): Promise<void> {
  const volume = await attachVolume({ ...access, takeover, forDeletion: true });
  volume.close();
}

/**
 * Deletes every object of a volume, its wrapped keys first: once those are gone, whatever a store keeps of the rest is noise.
 * Asks for no key, so that a volume whose key was lost can be deleted too. A dry run only counts.
 */
export async function deleteVolume(
  access: Pick<VolumeAccess, 'store' | 'prefix' | 'environment' | 'limits'>,
  options: { readonly dryRun: boolean; readonly onProgress?: Progress },
): Promise<DeleteReport> {
  const limits = access.limits ?? DEFAULT_LIMITS;
  const objects = new VolumeObjects(access.store, access.prefix, limits, access.environment);
  const report = { objects: 0, bytes: 0 };
  const take = async ({ key, sizeBytes }: ListedObject): Promise<void> => {
    if (!options.dryRun) await objects.delete(key);
    report.objects += 1;
    report.bytes += sizeBytes;
    options.onProgress?.({ step: options.dryRun ? 'counting' : 'deleting', ...report });
  };
  const marker = options.dryRun ? undefined : await markDeletion(objects);
  const before = new Set<string>([HEADER_NAME, ...(marker === undefined ? [] : [marker])]);
  for await (const page of pages(objects, WRAP_PREFIX)) {
    for (const found of page) {
      before.add(found.key);
      await take(found);
    }
  }
  const atOnce = new Semaphore(PARALLEL_DELETES);
  for await (const page of pages(objects, '')) {
    const rest = page.filter(({ key }) => !before.has(key));
    await Promise.all(rest.map((found) => atOnce.run(() => take(found))));
  }
  // Last, so that an interrupted deletion is still seen as a volume and can be gone on with.
  const headerBytes = await objects.sizeOf(HEADER_NAME);
  if (headerBytes !== undefined) await take({ key: HEADER_NAME, sizeBytes: headerBytes });
  if (marker !== undefined) await objects.delete(marker);
  return report;
}

/**
 * Says beside the header that this volume is being deleted, for who comes after an interruption and finds no keys. It proves
 * nothing, and only what cannot be opened any more is believed to be deleted for its sake.
 */
async function markDeletion(objects: VolumeObjects): Promise<string | undefined> {
  const header = await objects.get(HEADER_NAME, { offset: 0, length: HEADER_BYTES });
  if (header === undefined) return undefined;
  try {
    const name = deletionName(decodeVolumeHeader(header).volumeId);
    await objects.claim(name, Buffer.from('deleted'));
    return name;
  } catch (error) {
    // A store that is full must not keep what would make room in it; a header that is none has no volume to mark.
    const isPassable = ['ERR_STORE_LIMIT', 'ERR_VOLUME_CORRUPT', 'ERR_VOLUME_VERSION'] as const;
    if (isPassable.some((code) => isPosternError(error, code))) return undefined;
    throw error;
  }
}

type ListedObject = ObjectPage['objects'][number];

async function* pages(objects: VolumeObjects, prefix: string): AsyncGenerator<readonly ListedObject[]> {
  for (let after: string | undefined; ; ) {
    const page = await objects.list(prefix, after);
    yield page.objects;
    if (!page.truncated) return;
    after = page.objects.at(-1)?.key;
  }
}
