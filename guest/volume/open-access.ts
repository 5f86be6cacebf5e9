import type { ObjectStore } from '../../shared/objects/store.ts';
import { FileAnchor } from '../counter/file.ts';
import { relayForCommand } from '../objects/command-relay.ts';
import { loadSessionKey } from '../session/key.ts';
import type { ConfiguredVolume } from './configured.ts';
import type { VolumeAccess } from './create.ts';
import { systemEnvironment, type VolumeLog } from './environment.ts';
import { createKeyProvider } from './key-provider.ts';

/** What the program gives to its commands. */
export interface CommandContext {
  /** Opens a folder of this machine as a store; the code for that is the parent's. */
  openDirectory(path: string): Promise<ObjectStore>;
}

export interface AccessOptions extends CommandContext {
  readonly log: VolumeLog;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export interface OpenedAccess {
  readonly access: VolumeAccess;
  close(): void | Promise<void>;
}

/** Everything that a volume's configuration names, opened. */
export async function openAccess(config: ConfiguredVolume, options: AccessOptions): Promise<OpenedAccess> {
  const { store, close } = await openStore(config, options);
  const access: VolumeAccess = {
    store,
    prefix: config.prefix ?? config.name,
    name: config.name,
    keyProvider: createKeyProvider(config.key, options.environment),
    anchor: config.anchor.kind === 'file' ? new FileAnchor(config.anchor.path) : undefined,
    environment: systemEnvironment(options.log),
  };
  const { limits } = config;
  return { access: limits === undefined ? access : { ...access, limits }, close };
}

async function openStore(
  { store }: ConfiguredVolume,
  { openDirectory }: AccessOptions,
): Promise<{ readonly store: ObjectStore; close(): void | Promise<void> }> {
  if (store.kind === 'directory') return { store: await openDirectory(store.path), close: () => undefined };
  const key = await loadSessionKey(store.sessionKey);
  const { relay, close } = relayForCommand(store.parent, key);
  return { store: relay.store, close };
}
