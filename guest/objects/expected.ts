import type { PosternError } from '../../shared/errors.ts';
import { corrupt } from '../../shared/objects/failure.ts';
import { OBJECT_MAX_BYTES } from '../../shared/objects/store.ts';
import type { ObjectReply, ObjectRequest } from '../../shared/wire/object.ts';
import { PAGE_MAX_BYTES } from '../../shared/wire/object-page.ts';

/** What a request moves at most. */
export function mostBytes(request: ObjectRequest): number {
  if (request.op === 'put') return request.sizeBytes;
  if (request.op === 'get') return request.range?.length ?? OBJECT_MAX_BYTES;
  return request.op === 'list' ? PAGE_MAX_BYTES : 0;
}

/**
 * The bytes of DATA that must follow a reply. `sent`: all of a PUT's body went before it.
 * @throws PosternError ERR_STORE_CORRUPT for a reply that does not answer the request
 */
export function bodyBytes(request: ObjectRequest, reply: ObjectReply, sent: boolean): number {
  const { status } = reply;
  if ('detail' in reply) {
    if (status === 'ambiguous' && request.op !== 'put' && request.op !== 'delete')
      throw mismatch(request, status);
    return 0;
  }
  const answers = {
    put: sent && (status === 'created' || status === 'exists'),
    get: status === 'found' || status === 'absent',
    head: status === 'size' || status === 'absent',
    list: status === 'page',
    delete: status === 'deleted',
  };
  if (!answers[request.op]) throw mismatch(request, status);
  if (reply.status === 'found') return foundBytes(request, reply.sizeBytes);
  if (reply.status === 'size' && reply.sizeBytes > OBJECT_MAX_BYTES) throw mismatch(request, status);
  return reply.status === 'page' ? pageBytes(request, reply) : 0;
}

function foundBytes(request: ObjectRequest, sizeBytes: number): number {
  const range = request.op === 'get' ? request.range : undefined;
  const right = range === undefined ? sizeBytes <= OBJECT_MAX_BYTES : sizeBytes === range.length;
  if (!right) throw corrupt(`${sizeBytes} bytes for ${range?.length ?? 'an object'}`);
  return sizeBytes;
}

function pageBytes(request: ObjectRequest, page: Extract<ObjectReply, { status: 'page' }>): number {
  const limit = request.op === 'list' ? request.limit : 0;
  const right = page.count <= limit && page.sizeBytes <= PAGE_MAX_BYTES;
  if (!right) throw corrupt(`a page of ${page.count} keys in ${page.sizeBytes} bytes`);
  return page.sizeBytes;
}

function mismatch(request: ObjectRequest, status: string): PosternError {
  return corrupt(`a reply ${status} to a ${request.op}`);
}
