import { randomInt } from 'node:crypto';
import { PosternError } from '../../shared/errors.ts';
import type { ObjectStore } from '../../shared/objects/store.ts';
import type { TransportAddress } from '../../shared/transport/address.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { encodeStreamHeader } from '../../shared/wire/header.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { decodeReply, errorOfStatus, REPLY_BYTES } from '../../shared/wire/reply.ts';
import { FileAnchor } from '../counter/file.ts';
import { connectRelay } from '../objects/client.ts';
import { loadSessionKey } from '../session/key.ts';
import type { VolumeConfig } from './config.ts';
import type { VolumeAccess } from './create.ts';
import { systemEnvironment, type VolumeLog } from './environment.ts';
import { createKeyProvider } from './key-provider.ts';

const REPLY_TIMEOUT_MS = 10_000;
/** Flow ids of a command's streams: even, and far above those that the agent counts up from 0. */
const FLOW_ID_FROM = 2 ** 40;

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
  close(): void;
}

/** Everything that a volume's configuration names, opened. */
export async function openAccess(config: VolumeConfig, options: AccessOptions): Promise<OpenedAccess> {
  const { store, close } = await openStore(config, options);
  const access: VolumeAccess = {
    store,
    prefix: config.prefix ?? config.name,
    name: config.name,
    keyProvider: createKeyProvider(config.key, options.environment),
    anchor: config.anchor.kind === 'file' ? new FileAnchor(config.anchor.path) : undefined,
    environment: systemEnvironment(options.log),
  };
  return { access, close };
}

async function openStore(
  { store }: VolumeConfig,
  { openDirectory }: AccessOptions,
): Promise<{ readonly store: ObjectStore; close(): void }> {
  if (store.kind === 'directory') return { store: await openDirectory(store.path), close: () => undefined };
  const key = await loadSessionKey(store.sessionKey);
  return connectRelay({ open: () => openObjectStream(store.parent, key) });
}

/**
 * A stream of kind `object` within the session that the guest's agent holds, proven with its key.
 * @throws PosternError ERR_TRANSPORT_*, ERR_SESSION_UNREGISTERED when no agent has a session, ERR_FLOW_DENIED without grants
 */
export async function openObjectStream(parent: TransportAddress, key: Buffer): Promise<Stream> {
  const stream = await connectStream(parent, {});
  try {
    const flowId = FLOW_ID_FROM + 2 * randomInt(2 ** 40);
    stream.write(encodeStreamHeader('object', flowId, Buffer.alloc(0), key));
    const { status } = decodeReply(await readExactly(stream, REPLY_BYTES, REPLY_TIMEOUT_MS));
    if (status !== 'ok') throw errorOfStatus(status, `the parent answered ${status} for its objects`);
    return stream;
  } catch (error) {
    stream.destroy();
    if (error instanceof PosternError) throw error;
    throw new PosternError('ERR_TRANSPORT_FAILED', 'an object stream could not be opened', { cause: error });
  }
}
