import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { isPosternError } from '../../shared/errors.ts';
import type { Audit } from '../audit.ts';
import { FLOWS_MAX } from '../flow/flow-table.ts';
import type { Gate } from '../flow/gate.ts';
import { serveConnect } from './http-connect.ts';
import { badRequest, renderFailureMessage } from './http-failure.ts';
import { HEADERS_MAX_BYTES, serveForward } from './http-forward.ts';

/** A client on the same machine sends its request's head at once. */
export const HEAD_TIMEOUT_MS = 15_000;
/** Package managers pause between requests; longer than this they open a new connection. */
export const IDLE_TIMEOUT_MS = 60_000;

export interface HttpProxyOptions {
  readonly gate: Gate;
  readonly audit: Audit;
}

/** An HTTP proxy: CONNECT, and http:// requests in absolute form. Not listening yet. */
export function createHttpProxy({ gate, audit }: HttpProxyOptions): Server {
  const server = createServer({
    maxHeaderSize: HEADERS_MAX_BYTES,
    headersTimeout: HEAD_TIMEOUT_MS,
    keepAliveTimeout: IDLE_TIMEOUT_MS,
    // A body may take as long as it takes; back-pressure bounds its memory.
    requestTimeout: 0,
    insecureHTTPParser: false,
  });
  server.maxConnections = FLOWS_MAX;
  // A client may close its side once it has asked; node:http would take that for a client that is gone.
  Object.assign(server, { httpAllowHalfOpen: true });
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    settle(serveForward(gate, request, response), () => response.destroy());
  };
  server.on('request', onRequest);
  // The origin decides whether it wants the body.
  server.on('checkContinue', onRequest);
  server.on('connect', (request, socket, head) => {
    settle(serveConnect(gate, request, request.socket, head), () => socket.destroy());
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (error.code === 'ECONNRESET' || !socket.writable) {
      socket.destroy();
      return;
    }
    audit.malformed('http', `HTTP client sent away: ${error.code ?? error.message}`);
    socket.end(
      renderFailureMessage(badRequest(`the request cannot be read (${error.code ?? 'unknown'})`)),
      () => {
        socket.destroy();
      },
    );
  });
  return server;
}

function settle(work: Promise<void>, giveUp: () => void): void {
  work.catch((error: unknown) => {
    if (!isPosternError(error)) throw error;
    giveUp();
  });
}
