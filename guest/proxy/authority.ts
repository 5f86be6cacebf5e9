/** Where an HTTP request wants to go. `host` is as the client wrote it, IPv6 without brackets. */
export interface Authority {
  readonly host: string;
  readonly port: number;
}

export interface AbsoluteUri extends Authority {
  /** What the Host header becomes: the authority as written, without user information. */
  readonly hostHeader: string;
  /** Path and query as written; `*` for OPTIONS without a path. */
  readonly path: string;
}

/** `host:port` of CONNECT (RFC 9110 section 9.3.6); the port is required. Undefined for anything else. */
export function parseAuthority(text: string, defaultPort?: number): Authority | undefined {
  if (!/^[\x21-\x7e]*$/.test(text)) return undefined;
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:/?#@[\]\\]+))(?::(\d{1,5}))?$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = match?.[3] === undefined ? defaultPort : Number(match[3]);
  if (host === undefined || port === undefined || port < 1 || port > 65_535) return undefined;
  return { host, port };
}

/**
 * The absolute form of a request target (RFC 9112 section 3.2.2), `http` only. Taken apart by hand: a URL parser
 * rewrites hosts and paths, and a proxy passes on what the client wrote. User information is not accepted.
 */
export function parseAbsoluteUri(text: string, method: string): AbsoluteUri | undefined {
  if (!/^[\x21-\x7e]*$/.test(text)) return undefined;
  const match = /^http:\/\/([^/?#]+)([/?][^#\s]*)?$/i.exec(text);
  const authority = parseAuthority(match?.[1] ?? '', 80);
  if (match === null || authority === undefined) return undefined;
  const rest = match[2];
  let path = rest ?? (method === 'OPTIONS' ? '*' : '/');
  if (path.startsWith('?')) path = `/${path}`;
  return { ...authority, hostHeader: match[1] ?? '', path };
}
