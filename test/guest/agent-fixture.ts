import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { Agent } from '../../guest/agent.ts';
import { loadGuestConfig } from '../../guest/config/load.ts';
import { loadSessionKey } from '../../guest/session/key.ts';
import { createLogger, type Logger } from '../../shared/log.ts';
import { FakeParent, scratch } from './fake-parent.ts';

export interface Fixture {
  readonly folder: string;
  readonly parent: FakeParent;
  readonly agent: Agent;
  readonly socksPort: number;
  readonly httpPort: number;
  readonly inboundPath: string;
  close(): Promise<void>;
}

export interface FixtureOptions {
  /** YAML of the policy, below `version: 1`. */
  readonly policy: string;
  readonly resolvers?: readonly string[];
  /** Further lines of the configuration, YAML. */
  readonly config?: string;
  readonly logger?: Logger;
  /** Epoch seconds. */
  readonly clock?: () => number;
  /** False: the session is not waited for. */
  readonly waitForSession?: boolean;
  prepare?(parent: FakeParent): void;
}

/** An agent with a parent played by hand, both in this process; everything real but the parent and the network. */
export async function startFixture(options: FixtureOptions): Promise<Fixture> {
  const { folder, remove } = await scratch();
  const parent = new FakeParent(folder);
  options.prepare?.(parent);
  await parent.listen();
  const inboundPath = join(folder, 'agent.sock');
  const file = join(folder, 'guest.yaml');
  const resolvers = options.resolvers === undefined ? '' : `resolvers: ${JSON.stringify(options.resolvers)}`;
  await writeFile(join(folder, 'policy.yaml'), `version: 1\n${options.policy}`);
  await writeFile(
    file,
    `version: 1
parent: unix:${parent.path}
listen: unix:${inboundPath}
policy: policy.yaml
sessionKey: ${join(folder, 'run', 'session.key')}
proxies: {socks5: "127.0.0.1:0", http: "[::1]:0"}
${resolvers}
${options.config ?? ''}
`,
  );
  const config = await loadGuestConfig(file);
  const key = await loadSessionKey(config.sessionKey);
  const { clock } = options;
  const logger = options.logger ?? createLogger('test', 'json', 'silent');
  const agent = new Agent({ config, key, logger, name: 'test', ...(clock && { clock }) });
  try {
    await agent.start();
  } catch (error) {
    await parent.close();
    await remove();
    throw error;
  }
  if (options.waitForSession !== false) await agent.session.ready(5_000);
  const close = async (): Promise<void> => {
    await agent.close(0);
    await parent.close();
    await remove();
  };
  const { socks5, http } = agent.proxies;
  return {
    folder,
    parent,
    agent,
    socksPort: socks5?.port ?? 0,
    httpPort: http?.port ?? 0,
    inboundPath,
    close,
  };
}

/** A TCP server on a loopback port of its own, that `close` ends with all its sockets. */
export async function listenTcp(
  onSocket: (socket: Socket) => void,
): Promise<{ server: Server; port: number; close(): void }> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    onSocket(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = (): void => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { server, port: (server.address() as AddressInfo).port, close };
}

export async function connectTcp(port: number, host = '127.0.0.1'): Promise<Socket> {
  const socket = connect({ port, host, allowHalfOpen: true });
  await once(socket, 'connect');
  return socket;
}

/** Everything until the end; an error after some bytes is told by `error`. */
export async function readAll(socket: Socket): Promise<{ bytes: Buffer; error?: NodeJS.ErrnoException }> {
  const pieces: Buffer[] = [];
  socket.on('data', (piece) => pieces.push(piece));
  return new Promise((resolve) => {
    socket.once('end', () => resolve({ bytes: Buffer.concat(pieces) }));
    socket.once('error', (error) => resolve({ bytes: Buffer.concat(pieces), error }));
    socket.once('close', () => resolve({ bytes: Buffer.concat(pieces) }));
  });
}
