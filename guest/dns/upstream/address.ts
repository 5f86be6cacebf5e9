import { isIP, isIPv6 } from 'node:net';

export interface SocketAddress {
  readonly address: string;
  readonly port: number;
}

/** How to speak to a resolver; the name is what its certificate must be for. */
export type ResolverAddress = SocketAddress &
  (
    | { readonly protocol: 'plain' }
    | { readonly protocol: 'udp' }
    | { readonly protocol: 'tls'; readonly serverName: string }
    | { readonly protocol: 'https'; readonly serverName: string; readonly path: string }
  );

const DEFAULT_PORTS = { plain: 53, udp: 53, tls: 853, https: 443 } as const;
const DEFAULT_PATH = '/dns-query';

export function addressText({ address, port }: SocketAddress): string {
  return isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`;
}

/**
 * `IP`, `IP:PORT` or `[IPv6]:PORT`; in front `udp:`, `tls:` (RFC 7858) or `https:` (RFC 8484), and behind the latter two
 * `#NAME`, for https also `#NAME/path`. Undefined for anything else: an encrypted resolver without a name could not be authenticated.
 */
export function parseResolverAddress(text: string): ResolverAddress | undefined {
  const match = /^(?:(udp|tls|https):)?([^#]+?)(?:#([A-Za-z0-9._-]+)(\/[\x21-\x7e]*)?)?$/.exec(text);
  const [, scheme = 'plain', socket = '', serverName, path] = match ?? [];
  const protocol = scheme as keyof typeof DEFAULT_PORTS;
  const at = parseSocketAddress(socket, DEFAULT_PORTS[protocol]);
  if (match === null || at === undefined) return undefined;
  if (protocol === 'plain' || protocol === 'udp')
    return serverName === undefined ? { ...at, protocol } : undefined;
  if (serverName === undefined) return undefined;
  if (protocol === 'tls') return path === undefined ? { ...at, protocol, serverName } : undefined;
  return { ...at, protocol, serverName, path: path ?? DEFAULT_PATH };
}

function parseSocketAddress(text: string, defaultPort: number): SocketAddress | undefined {
  if (isIPv6(text)) return { address: text, port: defaultPort };
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text);
  const address = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3] ?? defaultPort);
  return isIP(address) === 0 || port < 1 || port > 0xffff ? undefined : { address, port };
}
