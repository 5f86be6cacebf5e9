import { parseConfig, readText } from '../../shared/config/load.ts';
import { parseSource } from '../../shared/config/source.ts';
import { loadGuestConfig } from '../config/load.ts';
import type { VolumeConfig as DiskConfig } from '../disk/config.ts';
import { limitsFor } from '../disk/memory.ts';
import { type VolumeConfig, volumesSchema } from './config.ts';
import type { FlushMode } from './header.ts';
import type { VolumeLimits } from './limits.ts';

/** A volume that a command can open. What only the guest's configuration says is undefined otherwise. */
export interface ConfiguredVolume extends VolumeConfig {
  readonly mode?: FlushMode;
  readonly limits?: VolumeLimits;
  /** Where an agent that may have it attached takes orders. */
  readonly agentSocket?: string;
}

/**
 * The volumes of a file: the guest's own configuration, where `volumes` has names as keys and all are behind the parent's
 * relay, or a file of volumes alone, where it is a list.
 * @throws PosternError ERR_CONFIG_UNREADABLE, ERR_CONFIG_INVALID
 */
export async function readVolumes(file: string): Promise<readonly ConfiguredVolume[]> {
  const text = await readText(file);
  if (isVolumesFile(parseSource(text).value)) return parseConfig(text, file, volumesSchema).volumes;
  const { parent, sessionKey, statusSocket: agentSocket, volumes } = await loadGuestConfig(file);
  const store = { kind: 'relay', parent, sessionKey } as const;
  return Object.entries(volumes).map(([name, config]) => ({ name, store, agentSocket, ...opened(config) }));
}

function opened({ prefix, key, anchor, mode, memoryBytes }: DiskConfig) {
  return {
    prefix,
    key,
    anchor:
      anchor === undefined ? ({ kind: 'none' } as const) : ({ kind: 'file', path: anchor.file } as const),
    mode,
    limits: limitsFor(memoryBytes),
  };
}

function isVolumesFile(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'volumes' in value && Array.isArray(value.volumes);
}
