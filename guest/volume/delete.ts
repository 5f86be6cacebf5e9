import type { ObjectPage } from '../../shared/objects/store.ts';
import type { VolumeAccess } from './create.ts';
import { DEFAULT_LIMITS } from './limits.ts';
import { HEADER_NAME, WRAP_PREFIX } from './names.ts';
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
  const wraps = new Set<string>();
  for await (const page of pages(objects, WRAP_PREFIX)) {
    for (const found of page) {
      wraps.add(found.key);
      await take(found);
    }
  }
  const atOnce = new Semaphore(PARALLEL_DELETES);
  for await (const page of pages(objects, '')) {
    const rest = page.filter(({ key }) => key !== HEADER_NAME && !wraps.has(key));
    await Promise.all(rest.map((found) => atOnce.run(() => take(found))));
  }
  // Last, so that an interrupted deletion is still seen as a volume and can be gone on with.
  const headerBytes = await objects.sizeOf(HEADER_NAME);
  if (headerBytes !== undefined) await take({ key: HEADER_NAME, sizeBytes: headerBytes });
  return report;
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
