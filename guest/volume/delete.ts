import type { VolumeAccess } from './create.ts';
import { DEFAULT_LIMITS } from './limits.ts';
import { HEADER_NAME, WRAP_PREFIX } from './names.ts';
import { VolumeObjects } from './objects.ts';

export interface DeleteReport {
  readonly objects: number;
  readonly bytes: number;
}

/**
 * Deletes every object of a volume, its wrapped keys first: once those are gone, whatever a store keeps of the rest is noise.
 * Asks for no key, so that a volume whose key was lost can be deleted too. A dry run only counts.
 */
export async function deleteVolume(
  access: Pick<VolumeAccess, 'store' | 'prefix' | 'environment' | 'limits'>,
  options: { readonly dryRun: boolean; readonly onProgress?: (done: DeleteReport) => void },
): Promise<DeleteReport> {
  const objects = new VolumeObjects(
    access.store,
    access.prefix,
    access.limits ?? DEFAULT_LIMITS,
    access.environment,
  );
  const report = { objects: 0, bytes: 0 };
  for (const prefix of [WRAP_PREFIX, '']) {
    for (let after: string | undefined; ; ) {
      const page = await objects.list(prefix, after);
      for (const { key, sizeBytes } of page.objects) {
        after = key;
        const isCounted = options.dryRun && prefix === '' && key.startsWith(WRAP_PREFIX);
        if (key === HEADER_NAME || isCounted) continue;
        if (!options.dryRun) await objects.delete(key);
        report.objects += 1;
        report.bytes += sizeBytes;
      }
      options.onProgress?.(report);
      if (!page.truncated) break;
    }
  }
  // Last, so that an interrupted deletion is still seen as a volume and can be gone on with.
  const headerBytes = await objects.sizeOf(HEADER_NAME);
  if (headerBytes !== undefined) {
    if (!options.dryRun) await objects.delete(HEADER_NAME);
    report.objects += 1;
    report.bytes += headerBytes;
  }
  return report;
}
