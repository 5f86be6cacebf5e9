import { readFile } from 'node:fs/promises';
import type { Finding } from '../../shared/cli/checks.ts';
import { formatAddress, parseAddress } from '../../shared/policy/address.ts';
import { errnoOf } from '../../shared/transport/failure.ts';
import { formatLoopback, type LoopbackAddress } from '../proxy/loopback.ts';

/** The only port that the C library asks. */
const DNS_PORT = 53;
/** resolv.conf(5): who is asked where no server is named. */
const DEFAULT_SERVER = '127.0.0.1';
/** resolv.conf(5), MAXNS: further ones are not read. */
const SERVERS_MAX = 3;

/**
 * Whether programs ask the agent.
 * @param isNeeded that nothing works but what asks it: the capture mode `names`
 */
export async function resolvConfFinding(
  path: string,
  listen: LoopbackAddress,
  isNeeded: boolean,
): Promise<Finding> {
  const state = isNeeded ? 'failed' : 'missing';
  const at = formatLoopback(listen);
  // Port 0 is any: nobody can say yet which.
  if (listen.port !== DNS_PORT) {
    const detail = `the C library asks port ${DNS_PORT} alone, and dns.listen is ${at}`;
    const advice = `dns: { listen: ${formatLoopback({ ...listen, port: DNS_PORT })} }`;
    return { what: path, state, detail, advice };
  }
  const servers = await serversIn(path);
  const others = servers.filter((server) => canonical(server) !== canonical(listen.host));
  if (others.length === 0) return { what: path, state: 'ok', detail: `programs ask ${at}` };
  const advice = `nameserver ${listen.host} and no other; see “The DNS server for applications” in docs/configuration.md`;
  if (servers[0] === others[0]) {
    return { what: path, state, detail: `programs ask ${servers.join(', ')}, not ${listen.host}`, advice };
  }
  const detail = `programs ask ${listen.host}, and where it refuses or is slow also ${others.join(', ')}`;
  return { what: path, state: 'missing', detail, advice };
}

async function serversIn(path: string): Promise<string[]> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return '';
    throw error;
  });
  const servers = [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].map(([, server = '']) => server);
  return servers.length === 0 ? [DEFAULT_SERVER] : servers.slice(0, SERVERS_MAX);
}

/** One spelling of an address; what is none stays as it is, and equals nothing. */
function canonical(text: string): string {
  const address = parseAddress(text);
  return address === undefined ? text : formatAddress(address);
}
