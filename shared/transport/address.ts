import { PosternError } from '../errors.ts';

/** VMADDR_CID_ANY of linux/vm_sockets.h: listen for every peer. */
export const CID_ANY = 0xffffffff;
/** `sun_path` of sockaddr_un less its terminating zero. */
export const UNIX_PATH_MAX_BYTES = 107;

export type TransportAddress =
  | { readonly kind: 'vsock'; readonly cid: number; readonly port: number }
  | { readonly kind: 'hybrid'; readonly path: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

/** Who is at the other end, as the kernel tells it (never as the peer claims). */
export type Peer =
  | { readonly kind: 'vsock'; readonly cid: number; readonly port: number }
  | { readonly kind: 'hybrid'; readonly path: string }
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'pair' };

const EXPECTED = 'vsock:CID:PORT, hybrid:PATH:PORT or unix:PATH';

/**
 * `vsock:3:5000`, `vsock:ANY:5000`, `hybrid:/run/vm/v.sock:5000`, `unix:/run/postern.sock`.
 * @throws PosternError ERR_ADDRESS_INVALID
 */
export function parseTransportAddress(text: string): TransportAddress {
  const kind = text.slice(0, text.indexOf(':'));
  const rest = text.slice(kind.length + 1);
  if (kind === 'unix') return { kind, path: parsePath(rest, text, 0) };
  const cut = rest.lastIndexOf(':');
  if (cut > 0 && kind === 'vsock') {
    const cid = rest.slice(0, cut);
    return {
      kind,
      cid: cid === 'ANY' ? CID_ANY : parseU32(cid, text),
      port: parseU32(rest.slice(cut + 1), text),
    };
  }
  if (cut > 0 && kind === 'hybrid') {
    // Ten digits and an underscore: the longest suffix that a guest-initiated PATH_PORT gets.
    const path = parsePath(rest.slice(0, cut), text, 11);
    return { kind, path, port: parseU32(rest.slice(cut + 1), text) };
  }
  throw invalid(text);
}

export function formatTransportAddress(address: TransportAddress): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  if (address.kind === 'hybrid') return `hybrid:${address.path}:${address.port}`;
  return `vsock:${address.cid === CID_ANY ? 'ANY' : address.cid}:${address.port}`;
}

function parseU32(digits: string, text: string): number {
  const value = /^(0|[1-9]\d{0,9})$/.test(digits) ? Number(digits) : Number.NaN;
  if (!(value < CID_ANY)) throw invalid(text);
  return value;
}

function parsePath(path: string, text: string, reservedBytes: number): string {
  const tooLong = Buffer.byteLength(path) + reservedBytes > UNIX_PATH_MAX_BYTES;
  if (path === '' || path.includes('\0') || tooLong) throw invalid(text);
  return path;
}

function invalid(text: string): PosternError {
  return new PosternError('ERR_ADDRESS_INVALID', `${JSON.stringify(text)}: expected ${EXPECTED}`);
}
