import type { ErrorCode, PosternError } from '../../shared/errors.ts';
import type { NbdErrorName } from './constants.ts';
import type { Refusal } from './request.ts';

/** Codes whose meaning an NBD error carries; every other expected failure of a device is an input/output error. */
const NBD_ERROR_OF: Partial<Record<ErrorCode, NbdErrorName>> = {
  // What a full volume says; a client retries nothing else so sensibly.
  ERR_VOLUME_LIMIT: 'ENOSPC',
  ERR_VOLUME_RANGE: 'EINVAL',
  ERR_VOLUME_CLOSED: 'ESHUTDOWN',
  ERR_VOLUME_FENCED: 'ESHUTDOWN',
};

/** What the client is told when the device failed. */
export function refusalOfFailure(failure: PosternError): Refusal {
  return { error: NBD_ERROR_OF[failure.code] ?? 'EIO', text: failure.message };
}
