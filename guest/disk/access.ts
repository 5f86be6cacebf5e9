import type { Logger } from '../../shared/log.ts';
import type { ObjectStore } from '../../shared/objects/store.ts';
import { FileAnchor } from '../counter/file.ts';
import type { VolumeAccess } from '../volume/create.ts';
import { systemEnvironment, type VolumeLog } from '../volume/environment.ts';
import { createKeyProvider } from '../volume/key-provider.ts';
import { prefixOf, type VolumeConfig } from './config.ts';
import { limitsFor } from './memory.ts';

/** What every volume of a process is reached through. */
export interface DiskSurroundings {
  readonly store: ObjectStore;
  readonly logger: Logger;
  /** Where a key of kind `env` is looked up. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** What opens this volume, as the configuration says. Nothing is reached yet. */
export function accessOf(
  name: string,
  config: VolumeConfig,
  { store, logger, environment }: DiskSurroundings,
): VolumeAccess {
  return {
    store,
    prefix: prefixOf(name, config),
    name,
    keyProvider: createKeyProvider(config.key, environment),
    anchor: config.anchor === undefined ? undefined : new FileAnchor(config.anchor.file),
    environment: systemEnvironment(engineLog(logger)),
    limits: { ...limitsFor(config.memoryBytes), outageTimeoutMs: config.outageTimeoutMs },
  };
}

function engineLog(logger: Logger): VolumeLog {
  const event = 'volume.engine';
  return {
    info: (fields, message) => logger.info({ event, ...fields }, message),
    warn: (fields, message) => logger.warn({ event, ...fields }, message),
    error: (fields, message) => logger.error({ event, ...fields }, message),
  };
}
