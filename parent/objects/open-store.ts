import { readFile } from 'node:fs/promises';
import { PosternError } from '../../shared/errors.ts';
import type { ObjectStore } from '../../shared/objects/store.ts';
import { cachedStore } from './cache.ts';
import type { StoreConfig, StoresConfig } from './config.ts';
import { openDirectoryStore } from './directory.ts';
import { createS3Store, type S3Options } from './s3.ts';

export interface OpenStore {
  readonly store: ObjectStore;
  close(): void;
}

/**
 * The store that an entry of `stores` describes; not probed yet (see proven.ts).
 * @throws PosternError ERR_STORE_UNSUITABLE, ERR_CONFIG_UNREADABLE
 */
export async function openStore(config: StoreConfig): Promise<OpenStore> {
  const opened = await openPlace(config);
  if (config.cache === undefined) return opened;
  try {
    return { ...opened, store: await cachedStore(opened.store, config.cache) };
  } catch (error) {
    opened.close();
    throw error;
  }
}

async function openPlace(config: StoreConfig): Promise<OpenStore> {
  if (config.directory !== undefined) {
    return { store: await openDirectoryStore(config.directory.path), close: () => {} };
  }
  if (config.s3 === undefined) throw new RangeError('a store that is neither a directory nor S3');
  const { credentials, endpoint, maxSockets, requestTimeoutMs, ...rest } = config.s3;
  return createS3Store({
    ...rest,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(maxSockets === undefined ? {} : { maxSockets }),
    ...(requestTimeoutMs === undefined ? {} : { requestTimeoutMs }),
    credentials: await credentialsOf(credentials),
  });
}

/** Every store of a configuration by name; none stays open when one cannot be opened. */
export async function openStores(config: StoresConfig): Promise<Map<string, OpenStore>> {
  const stores = new Map<string, OpenStore>();
  try {
    for (const [name, entry] of Object.entries(config)) stores.set(name, await openStore(entry));
    return stores;
  } catch (error) {
    for (const { close } of stores.values()) close();
    throw error;
  }
}

type CredentialsConfig = NonNullable<StoreConfig['s3']>['credentials'];

async function credentialsOf(config: CredentialsConfig): Promise<S3Options['credentials']> {
  if (config === 'aws') return config;
  const { accessKeyId, secretAccessKeyFile } = config;
  try {
    const secretAccessKey = (await readFile(secretAccessKeyFile, 'utf8')).trim();
    return { accessKeyId, secretAccessKey };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PosternError('ERR_CONFIG_UNREADABLE', `secretAccessKeyFile: ${reason}`, { cause: error });
  }
}
