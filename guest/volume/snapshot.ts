import { createPublicKey, verify } from 'node:crypto';
import { PosternError } from '../../shared/errors.ts';
import type { Volume } from './engine.ts';
import { label } from './keys.ts';
import { SNAPSHOT_NAME_MAX_BYTES, SNAPSHOTS_MAX } from './limits.ts';
import type { Progress } from './progress.ts';
import type { Snapshot } from './record.ts';

const SNAPSHOT_ID_BYTES = 16;
/** SubjectPublicKeyInfo of an Ed25519 key, up to the key itself (RFC 8410, section 4). */
const ED25519_SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');

/** Keeps the volume as it is now under a name. What was written before the call is in it. */
export async function createSnapshot(volume: Volume, name: string): Promise<void> {
  const { checkpointer, environment } = volume.parts;
  const nameBytes = Buffer.byteLength(name);
  if (nameBytes < 1 || nameBytes > SNAPSHOT_NAME_MAX_BYTES) {
    throw new PosternError('ERR_VOLUME_LIMIT', `a snapshot's name has 1 to ${SNAPSHOT_NAME_MAX_BYTES} bytes`);
  }
  if (checkpointer.isTaken(name)) {
    throw new PosternError('ERR_VOLUME_SNAPSHOT', `there is a snapshot ${name} already`);
  }
  if (checkpointer.snapshotCount >= SNAPSHOTS_MAX) {
    throw new PosternError('ERR_VOLUME_LIMIT', `a volume has at most ${SNAPSHOTS_MAX} snapshots`);
  }
  const id = environment.random(SNAPSHOT_ID_BYTES);
  await checkpointer.request({ snapshot: { id, name, sizeBytes: volume.sizeBytes } });
}

/** Gives a snapshot up, and with it the space that nothing else needs. */
export async function deleteSnapshot(volume: Volume, name: string): Promise<void> {
  const { id } = findSnapshot(volume, name);
  await volume.parts.checkpointer.request({ dropSnapshot: id });
}

/** @throws ERR_VOLUME_SNAPSHOT */
export function findSnapshot(volume: Volume, name: string): Snapshot {
  const snapshot = volume.parts.checkpointer.snapshots.find((other) => other.name === name);
  if (snapshot === undefined) throw new PosternError('ERR_VOLUME_SNAPSHOT', `there is no snapshot ${name}`);
  return snapshot;
}

/** What the owner signs, with the head's hash as `status` shows it. */
export function restoreMessage(volumeId: Buffer, headHash: Buffer, snapshotId: Buffer): Buffer {
  return label('restore', volumeId, headHash, snapshotId);
}

/**
 * Makes a snapshot's state the volume's: a commit like any other, after the head, so that nothing is turned back. Nobody may
 * write meanwhile; whoever has a file system mounted on it unmounts it before.
 * @throws ERR_VOLUME_TOKEN when the header names an owner and the token is not theirs for this head and snapshot
 */
export async function restoreSnapshot(
  volume: Volume,
  name: string,
  token?: Buffer,
  onProgress?: Progress,
): Promise<void> {
  const { checkpointer } = volume.parts;
  const snapshot = findSnapshot(volume, name);
  await checkToken(volume, snapshot, token);
  await volume.exclusively(async () => {
    onProgress?.({ step: 'folding in what was committed' });
    // Folds in what was committed, so that the restoring checkpoint has no blocks of its own.
    await checkpointer.request();
    onProgress?.({ step: `restoring ${name}` });
    await checkpointer.request({ restore: { snapshot, token } });
    return snapshot.sizeBytes;
  });
}

async function checkToken(volume: Volume, snapshot: Snapshot, token: Buffer | undefined): Promise<void> {
  const { header, sealer, attachedFrom } = volume.parts;
  if (header.ownerKey === undefined) return;
  if (token === undefined)
    throw new PosternError('ERR_VOLUME_TOKEN', 'this restore needs a token of the owner');
  const der = Buffer.concat([ED25519_SPKI_PREFIX, header.ownerKey]);
  const key = createPublicKey({ key: der, format: 'der', type: 'spki' });
  const { hash } = (await sealer.head()).point;
  const isSigned = [attachedFrom.hash, hash].some((head) =>
    verify(null, restoreMessage(header.volumeId, head, snapshot.id), key, token),
  );
  if (!isSigned)
    throw new PosternError('ERR_VOLUME_TOKEN', 'the token is not the owner’s for this state and snapshot');
}
