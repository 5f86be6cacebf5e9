import { type ErrorCode, PosternError } from '../errors.ts';
import { formatTransportAddress, type TransportAddress } from './address.ts';
import { ErrnoError } from './native/libc.ts';

const CODES: Readonly<Record<string, ErrorCode>> = {
  ECONNREFUSED: 'ERR_TRANSPORT_REFUSED',
  // vsock answers a port that nobody listens on with a reset.
  ECONNRESET: 'ERR_TRANSPORT_REFUSED',
  EPIPE: 'ERR_TRANSPORT_REFUSED',
  ENOENT: 'ERR_TRANSPORT_UNREACHABLE',
  ENOTDIR: 'ERR_TRANSPORT_UNREACHABLE',
  ENODEV: 'ERR_TRANSPORT_UNREACHABLE',
  ENETUNREACH: 'ERR_TRANSPORT_UNREACHABLE',
  EHOSTUNREACH: 'ERR_TRANSPORT_UNREACHABLE',
  EADDRNOTAVAIL: 'ERR_TRANSPORT_UNREACHABLE',
  ETIMEDOUT: 'ERR_TRANSPORT_TIMEOUT',
  EADDRINUSE: 'ERR_TRANSPORT_IN_USE',
  EACCES: 'ERR_TRANSPORT_DENIED',
  EPERM: 'ERR_TRANSPORT_DENIED',
  EROFS: 'ERR_TRANSPORT_DENIED',
  EAFNOSUPPORT: 'ERR_TRANSPORT_UNSUPPORTED',
};

/** The coded error for a failed system call; anything that is not one is returned as it is. */
export function transportFailure(cause: unknown, address: TransportAddress): unknown {
  const errno = errnoOf(cause);
  if (errno === undefined) return cause;
  const code = CODES[errno] ?? 'ERR_TRANSPORT_FAILED';
  return new PosternError(code, `${formatTransportAddress(address)}: ${(cause as Error).message}`, { cause });
}

/** The errno of a failed call, ours or Node's: `ENOENT`. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof ErrnoError) return error.code;
  const system = error instanceof Error && 'syscall' in error && 'code' in error;
  return system && typeof error.code === 'string' ? error.code : undefined;
}
