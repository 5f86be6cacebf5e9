import { PosternError } from '../../shared/errors.ts';
import type { ObjectStore } from '../../shared/objects/store.ts';
import type { Anchor } from '../counter/anchor.ts';
import { attemptAnchor } from './anchoring.ts';
import { sealCommit } from './commit.ts';
import type { VolumeEnvironment } from './environment.ts';
import { EMPTY_FRONTIER } from './frontier.ts';
import { encodeVolumeHeader, type FlushMode, rootId, type VolumeHeader, wrapKeys } from './header.ts';
import type { KeyProvider } from './key-provider.ts';
import { deriveGenerationKeys, deriveVolumeKeys, KEY_BYTES, VOLUME_ID_BYTES } from './keys.ts';
import { DEFAULT_LIMITS, VOLUME_MAX_BYTES, type VolumeLimits } from './limits.ts';
import { commitName, HEADER_NAME, wrapName } from './names.ts';
import { VolumeObjects } from './objects.ts';
import type { CommitRecord } from './record.ts';

export const FIRST_GENERATION = 1;
const WRAP_NONCE_BYTES = 24;
const SALT_BYTES = 16;

/** Where a volume is and what opens it: the same for every command. */
export interface VolumeAccess {
  readonly store: ObjectStore;
  /** Keys begin with this and a slash; the name of the volume, usually. */
  readonly prefix: string;
  /** The name that the header must carry. */
  readonly name: string;
  readonly keyProvider: KeyProvider;
  /** Undefined only for a volume of mode `none`. */
  readonly anchor: Anchor | undefined;
  readonly environment: VolumeEnvironment;
  readonly limits?: VolumeLimits;
}

export interface CreateOptions extends VolumeAccess {
  readonly sizeBytes: number;
  readonly mode: FlushMode;
  /** Ed25519 public key, 32 bytes, of whoever must sign for a restore. */
  readonly ownerKey?: Buffer;
}

/**
 * Makes an empty volume. The header comes first and claims the name; an attempt that ends half way leaves something
 * that cannot be attached and has to be deleted.
 * @throws ERR_VOLUME_EXISTS
 */
export async function createVolume(options: CreateOptions): Promise<VolumeHeader> {
  const { environment, anchor, mode, sizeBytes } = options;
  checkCreate(options);
  const limits = options.limits ?? DEFAULT_LIMITS;
  const objects = new VolumeObjects(options.store, options.prefix, limits, environment);
  const header: VolumeHeader = {
    volumeId: environment.random(VOLUME_ID_BYTES),
    anchorId: environment.random(VOLUME_ID_BYTES),
    name: options.name,
    mode,
    salt: environment.random(SALT_BYTES),
    ownerKey: options.ownerKey,
  };
  const headerBytes = encodeVolumeHeader(header);
  const rootKey = await options.keyProvider.rootKey(header.salt);
  if ((await objects.claim(HEADER_NAME, headerBytes)) === 'taken') {
    throw new PosternError('ERR_VOLUME_EXISTS', `volume ${options.name} is there already`);
  }
  const keys = { generationKey: environment.random(KEY_BYTES), baseKey: environment.random(KEY_BYTES) };
  const nonce = environment.random(WRAP_NONCE_BYTES);
  const wrap = wrapKeys(rootKey, headerBytes, FIRST_GENERATION, keys, nonce);
  await objects.put(wrapName(FIRST_GENERATION, rootId(rootKey, header.volumeId)), wrap);
  const volume = deriveVolumeKeys(keys.baseKey, header.volumeId);
  const generation = deriveGenerationKeys(keys.generationKey, header.volumeId, FIRST_GENERATION);
  const genesis = sealCommit(generation, volume, 0, 0, genesisRecord(sizeBytes, environment.dateMs()));
  await objects.put(commitName(0, 0), genesis.bytes);
  if (anchor !== undefined && mode.kind !== 'none') {
    const known = { anchorId: header.anchorId, signingSeed: volume.anchorSeed };
    const first = { epoch: 0, seq: 0, commitHash: genesis.hash };
    await attemptAnchor(environment, limits, (signal) => anchor.create(known, first, { signal }));
  }
  return header;
}

function checkCreate({ anchor, mode, sizeBytes, name }: CreateOptions): void {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 1 || sizeBytes > VOLUME_MAX_BYTES) {
    throw new PosternError('ERR_VOLUME_RANGE', `a volume of ${sizeBytes} bytes`);
  }
  if (anchor === undefined && mode.kind !== 'none') {
    throw new PosternError('ERR_ANCHOR_UNKNOWN', `volume ${name} of mode ${mode.kind} needs an anchor`);
  }
}

/** An empty volume, given up in order, so that its first attach is no takeover. */
function genesisRecord(sizeBytes: number, timeMs: number): CommitRecord {
  return {
    attach: false,
    detach: true,
    deletion: false,
    prevEpoch: 0,
    prevHash: Buffer.alloc(32),
    sizeBytes,
    oldestGeneration: FIRST_GENERATION,
    nextSegment: 1,
    checkpointEpoch: 0,
    checkpointSeq: 0,
    timeMs,
    nonce: Buffer.alloc(0),
    frontier: EMPTY_FRONTIER,
    groups: [],
    checkpoint: { coversSeq: 0, indexRoot: 0, tableRoot: 0, tableSegments: [], freed: [], snapshots: [] },
    restoreToken: undefined,
  };
}
