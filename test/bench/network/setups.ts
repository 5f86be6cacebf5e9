import type { ChildProcess } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { Target } from './load.ts';
import { run } from './processes.ts';

/** A way from the load to its server. */
export interface Setup {
  readonly name: string;
  /** Bulk and small messages have servers of their own, so that what is measured is not one server's turn. */
  readonly bulk: Target;
  readonly echo: Target;
  /** What the way costs is what these processes use; none for a direct connection. */
  readonly processes: readonly ChildProcess[];
  /** The command that runs the load where it must stand. */
  readonly prefix?: readonly string[];
}

const POSTERN = new URL('../../../shared/cli/postern.ts', import.meta.url).pathname;

/** The ports of the two servers. */
export interface Servers {
  readonly bulkPort: number;
  readonly echoPort: number;
}

export function direct(servers: Servers): Setup {
  return { name: 'direct', ...targets(servers, '127.0.0.1'), processes: [] };
}

function targets(
  { bulkPort, echoPort }: Servers,
  host: string,
  proxyPort?: number,
): Pick<Setup, 'bulk' | 'echo'> {
  const proxy = proxyPort === undefined ? {} : { proxyPort };
  return { bulk: { host, port: bulkPort, ...proxy }, echo: { host, port: echoPort, ...proxy } };
}

/** Two processes for each server: TCP to a unix socket, and that to TCP. */
export async function socat(folder: string, servers: Servers, bufferBytes?: number): Promise<Setup> {
  const name = bufferBytes === undefined ? 'socat' : `socat -b ${bufferBytes}`;
  const bulk = await socatPair(folder, servers.bulkPort, bufferBytes);
  const echo = await socatPair(folder, servers.echoPort, bufferBytes);
  return {
    name,
    ...targets({ bulkPort: bulk.port, echoPort: echo.port }, '127.0.0.1'),
    processes: [...bulk.processes, ...echo.processes],
  };
}

async function socatPair(
  folder: string,
  port: number,
  bufferBytes?: number,
): Promise<{ port: number; processes: ChildProcess[] }> {
  const socket = join(folder, `socat-${bufferBytes ?? 'default'}-${port}.sock`);
  const listenPort = await freePort();
  const options = bufferBytes === undefined ? [] : ['-b', String(bufferBytes)];
  const far = run([
    'socat',
    ...options,
    `unix-listen:${socket},fork,backlog=4096`,
    `tcp:127.0.0.1:${port},nodelay`,
  ]);
  const near = run([
    'socat',
    ...options,
    `tcp-listen:${listenPort},bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=4096`,
    `unix-connect:${socket}`,
  ]);
  await reachable(listenPort);
  return { port: listenPort, processes: [far, near] };
}

/** Two processes, as in production but for the cable: a unix socket, or one as Firecracker gives it to the host. */
export async function postern(folder: string, servers: Servers, cable: 'unix' | 'hybrid'): Promise<Setup> {
  const place = join(folder, cable);
  mkdirSync(place, { mode: 0o700 });
  const proxyPort = await freePort();
  const unixPath = cable === 'unix' ? join(place, 'parent.sock') : join(place, 'vm.sock_5000');
  const listen = cable === 'unix' ? `unix:${unixPath}` : `hybrid:${join(place, 'vm.sock')}:5000`;
  const rule = { ip: '127.0.0.1', ports: [servers.bulkPort, servers.echoPort] };
  const quotas = { flows: 20_000, newFlowsPerSecond: 1_000_000, dialsInFlight: 4096 };
  writeFileSync(
    join(place, 'parent.yaml'),
    stringify({
      version: 1,
      state: join(place, 'state'),
      admin: 'off',
      log: { level: 'warn' },
      guests: { bench: { listen, egress: { allow: [rule] }, quotas } },
    }),
  );
  writeFileSync(
    join(place, 'guest.yaml'),
    stringify({
      version: 1,
      parent: `unix:${unixPath}`,
      sessionKey: join(place, 'session.key'),
      proxies: { http: `127.0.0.1:${proxyPort}` },
      log: { level: 'warn' },
      policy: { version: 1, egress: { allow: [rule] } },
    }),
  );
  const parent = run([process.execPath, POSTERN, 'parent', '--config', join(place, 'parent.yaml')]);
  const guest = run([process.execPath, POSTERN, 'guest', '--config', join(place, 'guest.yaml')]);
  await reachable(proxyPort);
  return {
    name: `postern ${cable}`,
    ...targets(servers, '127.0.0.1', proxyPort),
    processes: [guest, parent],
  };
}

/** User-mode networking for a namespace; 10.0.2.2 is the host's loopback (slirp4netns(1)). */
export async function slirp4netns(servers: Servers): Promise<Setup> {
  const holder = run(['unshare', '--net', 'sh', '-c', 'ip link set lo up && exec cat'], 'pipe');
  await new Promise((resolve) => setTimeout(resolve, 500));
  const slirp = run(['slirp4netns', '--configure', '--mtu=65520', String(holder.pid), 'tap0']);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const prefix = ['nsenter', `--net=/proc/${holder.pid}/ns/net`];
  return { name: 'slirp4netns', ...targets(servers, '10.0.2.2'), processes: [slirp], prefix };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function reachable(port: number): Promise<void> {
  const { connect } = await import('node:net');
  for (let tries = 0; tries < 200; tries += 1) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1');
      socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
      socket.on('connect', () => socket.destroy());
    });
    if (open) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`nothing listens on port ${port}`);
}
