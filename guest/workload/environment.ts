import { formatLoopback, type LoopbackAddress } from '../proxy/loopback.ts';

export interface BoundProxies {
  readonly socks5?: LoopbackAddress;
  readonly http?: LoopbackAddress;
}

/** Where the proxies must not be asked: they would refuse it, and a guest talks to itself directly. */
const NO_PROXY = 'localhost,127.0.0.1,::1';

/** The variables by which most programs find a proxy. Both cases: curl reads http_proxy in lower case only. */
export function proxyEnvironment({ socks5, http }: BoundProxies): Record<string, string> {
  const variables: Record<string, string> = {};
  const set = (name: string, value: string): void => {
    variables[name] = value;
    variables[name.toLowerCase()] = value;
  };
  if (http !== undefined) {
    set('HTTP_PROXY', `http://${formatLoopback(http)}`);
    set('HTTPS_PROXY', `http://${formatLoopback(http)}`);
  }
  // socks5h: the proxy resolves the name, as the guest has no other resolver.
  if (socks5 !== undefined) set('ALL_PROXY', `socks5h://${formatLoopback(socks5)}`);
  if (Object.keys(variables).length > 0) set('NO_PROXY', NO_PROXY);
  return variables;
}
