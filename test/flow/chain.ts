import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before } from 'node:test';
import type { Flow, FlowOutcome } from '../../shared/flow/flow.ts';
import { startFlow } from '../../shared/flow/splice.ts';
import type { Stream } from '../../shared/transport/transport.ts';

/** A chain as in production: client - TCP - [flow] - unix - [flow] - TCP - server. */
export interface Chain {
  readonly client: net.Socket;
  readonly server: net.Socket;
  readonly near: Flow;
  readonly far: Flow;
  readonly nearDone: Promise<FlowOutcome>;
  readonly farDone: Promise<FlowOutcome>;
}

let folder = '';
before(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'postern-splice-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

const opened: net.Socket[] = [];
after(() => {
  for (const socket of opened) socket.destroy();
});

const OPTIONS = { allowHalfOpen: true, pauseOnConnect: true };

export async function tcpPair(): Promise<[net.Socket, net.Socket]> {
  const listener = net.createServer(OPTIONS).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as net.AddressInfo;
  const client = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
  const [[accepted]] = await Promise.all([once(listener, 'connection'), once(client, 'connect')]);
  listener.close();
  opened.push(client, accepted as net.Socket);
  return [client, accepted as net.Socket];
}

let unixCount = 0;
export async function unixPair(): Promise<[Stream, Stream]> {
  unixCount += 1;
  const socketPath = path.join(folder, `${unixCount}.sock`);
  const listener = net.createServer(OPTIONS).listen(socketPath);
  await once(listener, 'listening');
  const client = net.connect({ path: socketPath, allowHalfOpen: true });
  const [[accepted]] = await Promise.all([once(listener, 'connection'), once(client, 'connect')]);
  listener.close();
  const peer = { kind: 'unix', path: socketPath } as const;
  return [Object.assign(client, { peer }), Object.assign(accepted as net.Socket, { peer })];
}

export interface ChainOptions {
  /** What the client has said before the flow begins. */
  readonly fromClient?: Buffer;
  /** Opens the tunnel; a unix socket when it is not given. */
  tunnelPair?(): Promise<[Stream, Stream]>;
}

export async function chain({ fromClient, tunnelPair = unixPair }: ChainOptions = {}): Promise<Chain> {
  const [client, nearLocal] = await tcpPair();
  const [server, farLocal] = await tcpPair();
  const [nearTunnel, farTunnel] = await tunnelPair();
  if (fromClient !== undefined) {
    client.write(fromClient);
    await once(nearLocal, 'readable');
  }
  const nearDone = Promise.withResolvers<FlowOutcome>();
  const farDone = Promise.withResolvers<FlowOutcome>();
  const flows: { near?: Flow; far?: Flow } = {};
  // The control stream's part: RESET reaches the other side a moment later.
  const near = startFlow(nearLocal, nearTunnel, {
    sendReset: () => setImmediate(() => flows.far?.abort('reset-peer')),
    onDone: nearDone.resolve,
  });
  const far = startFlow(farLocal, farTunnel, {
    sendReset: () => setImmediate(() => flows.near?.abort('reset-peer')),
    onDone: farDone.resolve,
  });
  Object.assign(flows, { near, far });
  return { client, server, near, far, nearDone: nearDone.promise, farDone: farDone.promise };
}

export async function readAll(socket: net.Socket): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of socket.iterator({ destroyOnReturn: false })) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

export async function hashOf(socket: net.Socket): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of socket.iterator({ destroyOnReturn: false })) hash.update(piece as Buffer);
  return hash.digest('hex');
}

export async function writeMany(socket: net.Socket, byteCount: number): Promise<string> {
  const hash = createHash('sha256');
  const block = randomBytes(1 << 20);
  for (let sent = 0; sent < byteCount; ) {
    const piece = block.subarray(0, Math.min(1 + Math.floor(Math.random() * block.length), byteCount - sent));
    hash.update(piece);
    sent += piece.length;
    if (!socket.write(piece)) await once(socket, 'drain');
  }
  socket.end();
  return hash.digest('hex');
}
