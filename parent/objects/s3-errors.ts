import { S3ServiceException } from '@aws-sdk/client-s3';
import { PosternError } from '../../shared/errors.ts';
import { ambiguous, corrupt, unavailable } from '../../shared/objects/failure.ts';

/** Before a connection is there nothing was asked for. */
const NEVER_SENT = new Set(['connect', 'getaddrinfo']);
/** Said before the request is looked at: try again later. */
const OVERLOADED = new Set([
  'SlowDown',
  'ServiceUnavailable',
  'TooManyRequests',
  'Throttling',
  'RequestLimitExceeded',
]);
/** Answers that say "no" for now: the clock is off by too much (the client corrects it), or credentials are renewed. */
const FOR_NOW = new Set(['RequestTimeTooSkewed', 'ExpiredToken', 'TokenRefreshRequired', 'RequestTimeout']);
const OVER_LIMIT = new Set(['KeyTooLongError', 'EntityTooLarge', 'QuotaExceeded']);

export function isPreconditionFailed(error: unknown): boolean {
  return statusOf(error) === 412;
}

/** S3's own word that the object is not there. */
export function isNoSuchKey(error: unknown): boolean {
  return error instanceof S3ServiceException && error.name === 'NoSuchKey' && statusOf(error) === 404;
}

export function isNotFound(error: unknown): boolean {
  return statusOf(error) === 404;
}

/** What a failed GET, HEAD, LIST or DELETE means; an error that is no answer and no failure of a connection is a bug. */
export function readFailure(key: string, error: unknown): unknown {
  return failure(key, error, unavailable);
}

/**
 * What a failed PUT means. Whatever does not say for certain that nothing was written leaves it open: 409 (another
 * write of this key is under way), 5xx, a time-out, a connection that ended.
 */
export function writeFailure(key: string, error: unknown): unknown {
  if (error instanceof Error && 'syscall' in error && NEVER_SENT.has(String(error.syscall))) {
    return unavailable(messageOf(key, error), error);
  }
  return failure(key, error, ambiguous);
}

function failure(
  key: string,
  error: unknown,
  open: (message: string, cause: unknown) => PosternError,
): unknown {
  if (error instanceof PosternError || !(error instanceof Error)) return error;
  const message = messageOf(key, error);
  const status = statusOf(error);
  if (OVERLOADED.has(error.name) || status === 429) return unavailable(message, error);
  if (FOR_NOW.has(error.name)) return open(message, error);
  if (OVER_LIMIT.has(error.name)) return new PosternError('ERR_STORE_LIMIT', message, { cause: error });
  if (status === undefined) return isConnectionFailure(error) ? open(message, error) : error;
  if (status === 416) return corrupt(message, error);
  if (status >= 500 || status === 409 || status === 408) return open(message, error);
  // 404 that is no NoSuchKey: no such bucket, or a server that is none of S3.
  if (status >= 300) return new PosternError('ERR_STORE_DENIED', message, { cause: error });
  // A success that cannot be read.
  return open(message, error);
}

/** Failures of the connection, time-outs, aborts, and credentials that cannot be had now. */
function isConnectionFailure(error: Error): boolean {
  const named = ['TimeoutError', 'AbortError', 'CredentialsProviderError', 'ProviderError'].includes(
    error.name,
  );
  return named || 'code' in error;
}

function statusOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('$metadata' in error)) return undefined;
  const metadata = error.$metadata as { readonly httpStatusCode?: number } | undefined;
  return metadata?.httpStatusCode;
}

function messageOf(key: string, error: Error): string {
  const status = statusOf(error);
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  const what = [status, error.name === 'Error' ? undefined : error.name, code].filter(
    (part) => part !== undefined,
  );
  return `${key}: S3 ${[...new Set(what)].join(' ')}: ${error.message.slice(0, 200)}`;
}
