import { isPosternError, PosternError } from '../../shared/errors.ts';
import type { VolumeAccess } from './create.ts';
import { deleteVolume, takeForDeletion } from './delete.ts';
import { inspectVolume } from './inspect.ts';
import type { Action } from './run-action.ts';
import { type VolumeStatus, volumeStatus } from './status.ts';

/** What is known of a volume that is to go: a broken one, or one whose key is lost, may be beyond that. */
type Found =
  | { readonly state: 'detached' | 'attached'; readonly status: VolumeStatus }
  | { readonly state: 'unknown'; readonly reason: PosternError }
  /** Taken to be deleted, which did not come to its end. */
  | { readonly state: 'deleting' }
  /** No header: nothing, or what an interrupted deletion left. */
  | { readonly state: 'gone' };

/** `postern volume delete`: refuses what cannot be undone until it is meant, and what is in use until that is meant too. */
export const remove: Action = async ({ access, options, progress }) => {
  const dryRun = options.dryRun === true;
  if (!dryRun && options.yes !== true) {
    const text = `deleting ${access.name} cannot be undone: --yes does it, --dry-run says what would go`;
    throw new PosternError('ERR_CONFIG_INVALID', text);
  }
  const found = await find(access);
  const mayTake = options.takeover === true;
  if (!dryRun) await take(access, found, mayTake);
  const value = await deleteVolume(access, { dryRun, onProgress: progress });
  if (found.state === 'gone' && value.objects === 0) throw nothingThere(access.name);
  const verb = dryRun ? 'would delete' : 'deleted';
  const lines = [`${verb} ${value.objects} objects of ${value.bytes} bytes`];
  if (dryRun) lines.push(...describe(found));
  const status =
    'status' in found ? { sizeBytes: found.status.sizeBytes, snapshots: names(found.status) } : {};
  return { value: { ...value, dryRun, state: found.state, ...status }, text: lines.join('\n') };
};

async function find(access: VolumeAccess): Promise<Found> {
  try {
    const status = await volumeStatus(await inspectVolume(access));
    return { state: status.attached ? 'attached' : 'detached', status };
  } catch (error) {
    if (!isPosternError(error) || error.code === 'ERR_VOLUME_UNAVAILABLE') throw error;
    if (error.code === 'ERR_VOLUME_NOT_FOUND') return { state: 'gone' };
    if (error.code === 'ERR_VOLUME_DELETED') return { state: 'deleting' };
    return { state: 'unknown', reason: error };
  }
}

/** Nobody else has the volume, or can have it any more, when this resolves; nothing of it is gone when it throws. */
async function take(access: VolumeAccess, found: Found, mayTake: boolean): Promise<void> {
  const { name } = access;
  if (found.state === 'attached' && !mayTake) {
    const text = `volume ${name} was not detached: it is in use, or its last user crashed; --takeover shuts that one out and deletes it all the same`;
    throw new PosternError('ERR_VOLUME_IN_USE', text);
  }
  if (found.state === 'unknown' && !mayTake) throw untold(name, found.reason);
  if (found.state !== 'attached' && found.state !== 'detached') return;
  try {
    await takeForDeletion(access, mayTake);
  } catch (error) {
    if (!isPosternError(error) || !isFull(error)) throw error;
    // A store that takes nothing any more must not keep what would make room in it.
    if (!mayTake) throw untold(name, error);
  }
}

function isFull(error: PosternError): boolean {
  return [error, error.cause].some((each) => isPosternError(each, 'ERR_STORE_LIMIT'));
}

function untold(name: string, reason: PosternError): PosternError {
  const text = `whether volume ${name} is in use cannot be told (${reason.code}: ${reason.message}); --takeover deletes it all the same`;
  return new PosternError('ERR_VOLUME_IN_USE', text, { cause: reason });
}

function describe(found: Found): string[] {
  if (found.state === 'gone') return ['what is left of a volume that was deleted in part'];
  if (found.state === 'deleting') return ['its deletion was begun before, and interrupted'];
  if (found.state === 'unknown')
    return [`it cannot be opened: ${found.reason.code}: ${found.reason.message}`];
  const { sizeBytes, liveBytes, seq } = found.status;
  const snapshots = names(found.status);
  return [
    `a volume of ${sizeBytes} bytes, ${liveBytes} of them written, at commit ${seq}`,
    snapshots.length === 0 ? 'no snapshots' : `with ${snapshots.length} snapshots: ${snapshots.join(', ')}`,
    found.state === 'attached'
      ? 'it was not detached: it is in use, or its last user crashed; deleting it needs --takeover'
      : 'it is detached',
  ];
}

function names({ snapshots }: VolumeStatus): string[] {
  return snapshots.map(({ name }) => name);
}

function nothingThere(name: string): PosternError {
  return new PosternError(
    'ERR_VOLUME_NOT_FOUND',
    `no volume ${name} in this store, and nothing of one; 'postern volume create ${name}' makes one`,
  );
}
