import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, isIPv6 } from 'node:net';
import type { Finding } from '../../shared/cli/checks.ts';
import { isPosternError } from '../../shared/errors.ts';
import { errnoOf } from '../../shared/transport/failure.ts';
import { StandIns } from '../capture/stand-ins.ts';
import { formatLoopback, type LoopbackAddress, listenLoopback } from '../proxy/loopback.ts';

/** Ports that one finding names; the rest is counted. */
const SHOWN_MAX = 8;

const ADVICE: Readonly<Record<string, string>> = {
  EADDRINUSE: 'something else listens there (ss -lntup says what): stop it, or choose another port',
  EACCES: 'ports below 1024 are root’s: run the agent as root, or give it CAP_NET_BIND_SERVICE',
  EADDRNOTAVAIL: 'loopback is down: ip link set lo up',
};
const ADVICE_ELSE = 'the agent will not start so';

/** Whether the DNS server's address can be had, for UDP and for TCP. */
export async function dnsServerFinding(listen: LoopbackAddress): Promise<Finding> {
  const what = `DNS server ${formatLoopback(listen)}`;
  const errors = [
    { protocol: 'TCP', error: await bindTcp(listen) },
    { protocol: 'UDP', error: await bindUdp(listen) },
  ].filter(({ error }) => error !== undefined);
  const [first] = errors;
  if (first === undefined) return { what, state: 'ok', detail: 'free for UDP and TCP' };
  const detail = errors.map(({ protocol, error }) => `${protocol}: ${error}`).join(', ');
  return { what, state: 'failed', detail, advice: ADVICE[first.error ?? ''] ?? ADVICE_ELSE };
}

/** Whether every port on which a name may be dialled can be listened on, as the capture mode `names` will. */
export async function captureFinding(ports: readonly number[]): Promise<Finding> {
  const what = 'ports of captured names';
  const standIns = new StandIns({ portsOf: () => [], onFlow: (socket) => socket.destroy() });
  const failed: { readonly port: number; readonly error: string }[] = [];
  for (const port of ports) {
    const error = await errorOf(() => standIns.probe([port]));
    if (error !== undefined) failed.push({ port, error });
  }
  const [first] = failed;
  if (first === undefined) return { what, state: 'ok', detail: `${ports.length} free, in 127.100.0.0/16` };
  const shown = failed.slice(0, SHOWN_MAX).map(({ port, error }) => `${port}: ${error}`);
  const more = failed.length > SHOWN_MAX ? `, and ${failed.length - SHOWN_MAX} more` : '';
  const isTaken = first.error === 'EADDRINUSE';
  const advice = isTaken
    ? 'a server of this guest listens on all addresses: have it listen on its own (127.0.0.1), or on another port'
    : (ADVICE[first.error] ?? ADVICE_ELSE);
  return { what, state: 'failed', detail: `${shown.join(', ')}${more}`, advice };
}

async function bindTcp(at: LoopbackAddress): Promise<string | undefined> {
  const server = createServer();
  return errorOf(async () => {
    await listenLoopback(server, at);
    await new Promise((resolve) => server.close(resolve));
  });
}

async function bindUdp({ host, port }: LoopbackAddress): Promise<string | undefined> {
  const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
  return errorOf(async () => {
    const listening = once(socket, 'listening');
    socket.bind(port, host);
    await listening.finally(() => socket.close());
  });
}

/** The system's word for why it failed; undefined when it did not. */
async function errorOf(work: () => Promise<void>): Promise<string | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    const errno = errnoOf(isPosternError(error) ? error.cause : error);
    if (errno === undefined) throw error;
    return errno;
  }
}
