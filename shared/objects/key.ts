import { PosternError } from '../errors.ts';

/** S3 allows 1024; the rest is room for what an operator's proxy or gateway puts in front. */
export const KEY_MAX_BYTES = 512;
/** A file name has 255 bytes on every file system in use; stores put marks on theirs. */
export const KEY_SEGMENT_MAX_BYTES = 200;

/**
 * What S3's documentation calls safe, and file names, URLs and logs carry unquoted. `%` and `/` stay free as marks
 * for the stores' own files.
 */
const SEGMENT = /^[A-Za-z0-9!+,.=@_~-]+$/;

/**
 * Segments of SEGMENT characters with single slashes between them, none of them `.` or `..`.
 * @throws PosternError ERR_STORE_DENIED for its shape, ERR_STORE_LIMIT for its length
 */
export function checkKey(key: string): void {
  if (key.length > KEY_MAX_BYTES) throw tooLong('key', key);
  for (const segment of key.split('/')) checkSegment(segment, key);
}

/** True for what `checkKey` accepts. */
export function isKey(text: string): boolean {
  return (
    text.length <= KEY_MAX_BYTES && text.split('/').every((segment) => segmentProblem(segment) === undefined)
  );
}

/**
 * A prefix for `list`: empty, or any beginning of a key; it need not end at a slash.
 * @throws PosternError ERR_STORE_DENIED, ERR_STORE_LIMIT
 */
export function checkPrefix(prefix: string): void {
  if (prefix.length > KEY_MAX_BYTES) throw tooLong('prefix', prefix);
  const segments = prefix.split('/');
  const last = segments.pop() ?? '';
  for (const segment of segments) checkSegment(segment, prefix);
  // The last segment goes on: `.` is the beginning of `.x`.
  if (last !== '') checkSegment(`${last}x`, prefix);
}

function checkSegment(segment: string, whole: string): void {
  const problem = segmentProblem(segment);
  if (problem === 'long') throw tooLong('segment', whole);
  if (problem !== undefined) {
    throw new PosternError('ERR_STORE_DENIED', `${quote(whole)} is no object key: ${problem}`);
  }
}

function segmentProblem(segment: string): string | undefined {
  if (segment === '') return 'an empty segment';
  if (segment === '.' || segment === '..') return 'a segment of dots';
  if (segment.length > KEY_SEGMENT_MAX_BYTES) return 'long';
  return SEGMENT.test(segment) ? undefined : 'characters outside A-Z a-z 0-9 ! + , - . = @ _ ~';
}

function tooLong(what: string, text: string): PosternError {
  return new PosternError('ERR_STORE_LIMIT', `${what} of ${text.length} bytes: ${quote(text)}`);
}

/** Keys come from peers: what a message shows of one is short and printable. */
function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}
