import { createServer, type Server, type Socket } from 'node:net';
import { type ErrorCode, isPosternError } from '../../shared/errors.ts';
import type { Audit } from '../audit.ts';
import { FLOWS_MAX } from '../flow/flow-table.ts';
import type { Gate, GateResult } from '../flow/gate.ts';
import { dismissClient, joinClient, whileConnected } from './client-socket.ts';
import { encodeSocksReply, SocksHandshake, type SocksReply, type SocksRequest } from './socks5.ts';
import { UdpRelay } from './udp-relay.ts';

/** Clients with datagrams at once; each has a port here and up to two at the parent, whose quota is 512. */
export const SOCKS_ASSOCIATIONS_MAX = 256;
/** A client on the same machine says what it wants at once. */
export const SOCKS_HANDSHAKE_TIMEOUT_MS = 10_000;

export interface SocksServerOptions {
  readonly gate: Gate;
  readonly audit: Audit;
  readonly handshakeTimeoutMs?: number;
}

export interface SocksServer {
  readonly server: Server;
  /** Closes clients that have no flow yet, and those with datagrams; flows are the table's to end. */
  closeClients(): void;
}

/** A SOCKS5 proxy (RFC 1928) without authentication; CONNECT and UDP ASSOCIATE. Not listening yet. */
export function createSocksServer(options: SocksServerOptions): SocksServer {
  const waiting = new Set<Socket>();
  const relays = new Set<UdpRelay>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    // Told to whoever owns the socket next; without a listener an early reset would end the process.
    socket.on('error', () => {});
    waiting.add(socket);
    serve(socket, options, relays)
      .catch((error: unknown) => {
        if (!isPosternError(error)) throw error;
        socket.destroy();
      })
      .finally(() => waiting.delete(socket));
  });
  server.maxConnections = FLOWS_MAX;
  const closeClients = (): void => {
    for (const socket of waiting) socket.destroy();
    for (const relay of relays) relay.close();
  };
  return { server, closeClients };
}

async function serve(socket: Socket, options: SocksServerOptions, relays: Set<UdpRelay>): Promise<void> {
  const request = await readRequest(socket, options);
  if (request === undefined) return;
  if (request.command === 'udp-associate') return associate(socket, request, options, relays);
  if (request.command !== 'connect') return refuse(socket, 'commandNotSupported');
  if (request.port === 0 || request.host === '') return refuse(socket, 'failure');
  const { host, port } = request;
  let result: GateResult;
  try {
    result = await whileConnected(socket, (gone) =>
      options.gate.connect({ host, port, via: 'socks5' }, gone),
    );
  } catch (error) {
    if (!isPosternError(error)) throw error;
    return refuse(socket, replyOfError(error.code));
  }
  if (result.kind === 'denied') return refuse(socket, 'notAllowed');
  await joinClient(options.gate, socket, result, encodeSocksReply('succeeded'));
}

/** RFC 1928 section 7: the client's own datagrams, for as long as its connection is open. */
async function associate(
  socket: Socket,
  { port }: SocksRequest,
  { gate, audit }: SocksServerOptions,
  relays: Set<UdpRelay>,
): Promise<void> {
  if (socket.destroyed || socket.readableEnded) {
    socket.destroy();
    return;
  }
  if (relays.size >= SOCKS_ASSOCIATIONS_MAX) {
    const record = { via: 'socks5', protocol: 'udp', destination: '*', port: 0 } as const;
    audit.failed({ ...record, reason: 'ERR_FLOW_LIMIT' }, `${relays.size} clients have datagrams already`);
    return refuse(socket, 'failure');
  }
  const onClosed = (relay: UdpRelay): void => void relays.delete(relay);
  const relay = new UdpRelay({ gate, control: socket, clientPort: port, onClosed });
  relays.add(relay);
  try {
    await relay.open();
  } catch (error) {
    if (!isPosternError(error)) throw error;
    refuse(socket, replyOfError(error.code));
    return;
  }
  socket.resume();
  socket.write(encodeSocksReply('succeeded', relay.endpoint));
}

/** The request, with what came behind it put back into the socket; undefined when the client was sent away. */
function readRequest(socket: Socket, options: SocksServerOptions): Promise<SocksRequest | undefined> {
  return new Promise((resolve) => {
    const handshake = new SocksHandshake();
    const finish = (request?: SocksRequest): void => {
      clearTimeout(timer);
      socket.off('data', onData).off('end', onGone).off('close', onGone).pause();
      resolve(request);
    };
    const onGone = (): void => {
      socket.destroy();
      finish();
    };
    const onData = (piece: Buffer): void => {
      let step = handshake.push(piece);
      while (step.kind === 'answer') {
        socket.write(step.bytes);
        step = handshake.push(Buffer.alloc(0));
      }
      if (step.kind === 'request') {
        finish(step.request);
        if (step.rest.length > 0) socket.unshift(step.rest);
      } else if (step.kind === 'close') {
        options.audit.malformed('socks5', `SOCKS client sent away: ${step.why}`);
        finish();
        dismissClient(socket, step.bytes);
      }
    };
    const timer = setTimeout(() => {
      options.audit.malformed('socks5', 'SOCKS client did not finish its request in time');
      onGone();
    }, options.handshakeTimeoutMs ?? SOCKS_HANDSHAKE_TIMEOUT_MS);
    socket.on('data', onData).on('end', onGone).on('close', onGone);
  });
}

function refuse(socket: Socket, reply: SocksReply): void {
  dismissClient(socket, encodeSocksReply(reply));
}

/** RFC 1928 section 6, as near as its nine replies come. */
export function replyOfError(code: ErrorCode): SocksReply {
  switch (code) {
    case 'ERR_FLOW_DENIED':
      return 'notAllowed';
    case 'ERR_FLOW_REFUSED':
      return 'refused';
    case 'ERR_FLOW_UNREACHABLE':
    case 'ERR_RESOLVE_NOT_FOUND':
    case 'ERR_RESOLVE_FAILED':
      return 'hostUnreachable';
    case 'ERR_FLOW_TIMEOUT':
      return 'ttlExpired';
    case 'ERR_SESSION_LOST':
      return 'networkUnreachable';
    default:
      return 'failure';
  }
}
