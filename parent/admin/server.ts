import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { PosternError } from '../../shared/errors.ts';
import { formatTcpAddress, type TcpAddress } from '../tcp/address.ts';
import { bindError, boundAddress, type TcpListener } from '../tcp/listen.ts';

/** A scraper, a prober and a person, several times over. */
const CONNECTIONS_MAX = 64;
/** Requests here have no body and few headers. */
const HEADERS_MAX_BYTES = 8 * 1024;
const REQUEST_TIMEOUT_MS = 5_000;

export interface AdminRoutes {
  /** Prometheus text. */
  metrics(): Promise<{ readonly contentType: string; readonly text: string }>;
  /** Why the parent is not ready; empty when it is. */
  unreadiness(): readonly string[];
  /** @throws PosternError ERR_SESSION_STATE. False: there is no such guest. */
  release(guest: string): Promise<boolean>;
}

/** The operator's endpoint: metrics, health, and the release of guests. @throws PosternError ERR_LISTEN_FAILED */
export function listenAdmin(address: TcpAddress, routes: AdminRoutes): Promise<TcpListener> {
  const server = createServer(
    {
      maxHeaderSize: HEADERS_MAX_BYTES,
      headersTimeout: REQUEST_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: REQUEST_TIMEOUT_MS / 5,
    },
    (request, response) => void serve(request, response, routes),
  );
  server.maxConnections = CONNECTIONS_MAX;
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(bindError(address, 'admin', error)));
    server.listen({ host: address.host, port: address.port, ipv6Only: address.host.includes(':') }, () => {
      // What accept() says later concerns one connection; the next is tried anyway.
      server.removeAllListeners('error').on('error', () => {});
      resolve({ address: boundAddress(server, address), close: () => closeHttp(server) });
    });
  });
}

function closeHttp(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(() => resolve()));
}

async function serve(request: IncomingMessage, response: ServerResponse, routes: AdminRoutes): Promise<void> {
  // Nothing here takes a body; one that is sent anyway is not kept.
  request.resume();
  const path = (request.url ?? '').split('?', 1)[0] ?? '';
  const guest = /^\/guests\/([a-z0-9-]{1,63})\/release$/.exec(path)?.[1];
  if (guest !== undefined) return release(request, response, guest, routes);
  if (request.method !== 'GET' && request.method !== 'HEAD') return answer(response, 405, 'only GET\n');
  if (path === '/healthz') return answer(response, 200, 'ok\n');
  if (path === '/readyz') {
    const reasons = routes.unreadiness();
    return answer(response, reasons.length === 0 ? 200 : 503, `${reasons.join('\n') || 'ready'}\n`);
  }
  if (path === '/metrics') {
    const { contentType, text } = await routes.metrics();
    return answer(response, 200, text, contentType);
  }
  answer(response, 404, 'paths: /metrics, /healthz, /readyz, POST /guests/NAME/release\n');
}

async function release(
  request: IncomingMessage,
  response: ServerResponse,
  guest: string,
  routes: AdminRoutes,
): Promise<void> {
  if (request.method !== 'POST') return answer(response, 405, 'only POST\n');
  // Metrics may be scraped from afar; this is for those who are on the parent itself, and not for a web page there.
  if (!isLocal(request)) return answer(response, 403, 'only from the parent host itself\n');
  if (request.headers.origin !== undefined) return answer(response, 403, 'not from a browser\n');
  try {
    const found = await routes.release(guest);
    answer(response, found ? 200 : 404, found ? `released ${guest}\n` : `no guest ${guest}\n`);
  } catch (error) {
    if (!(error instanceof PosternError)) throw error;
    answer(response, 500, `${error.message}\n`);
  }
}

function isLocal({ socket }: IncomingMessage): boolean {
  return socket.remoteAddress !== undefined && socket.remoteAddress === socket.localAddress;
}

function answer(
  response: ServerResponse,
  status: number,
  text: string,
  contentType = 'text/plain; charset=utf-8',
) {
  response
    .writeHead(status, { 'content-type': contentType, 'content-length': Buffer.byteLength(text) })
    .end(text);
}

/** The address of a request's target, for messages. */
export function adminUrl(address: TcpAddress, path: string): string {
  return `http://${formatTcpAddress(address)}${path}`;
}
