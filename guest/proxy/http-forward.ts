import {
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { isPosternError, PosternError } from '../../shared/errors.ts';
import type { Gate, GateResult } from '../flow/gate.ts';
import type { Tunnel } from '../flow/tunnel.ts';
import { type AbsoluteUri, parseAbsoluteUri } from './authority.ts';
import {
  badRequest,
  failureOfError,
  failureOfRefusal,
  type HttpFailure,
  renderFailure,
} from './http-failure.ts';
import { countHeader, endToEndHeaders } from './http-headers.ts';

/** A server that takes a request and says nothing for this long is given up; uploads and downloads may take longer. */
export const RESPONSE_TIMEOUT_MS = 300_000;
/** What node:http's server accepts of a client holds for an answer as well. */
export const HEADERS_MAX_BYTES = 32 * 1024;
/** Set anew by the proxy; `expect` is added where the client waits for it. */
const REPLACED = new Set(['host', 'content-length', 'expect']);

/** One request in absolute form: to the origin over a flow of its own, and the answer back. */
export async function serveForward(
  gate: Gate,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const uri = parseAbsoluteUri(request.url ?? '', request.method ?? '');
  if (uri === undefined) return answer(request, response, badRequest(targetProblem(request.url ?? '')));
  if (countHeader(request.rawHeaders, 'host') > 1 || countHeader(request.rawHeaders, 'content-length') > 1) {
    return answer(request, response, badRequest('Host or Content-Length stands there twice'));
  }
  const gone = new AbortController();
  const onClose = (): void => gone.abort();
  response.once('close', onClose);
  let result: GateResult;
  try {
    const { host, port } = uri;
    result = await gate.connect({ host, port, via: 'http' }, gone.signal);
  } catch (error) {
    if (!isPosternError(error)) throw error;
    return answer(request, response, failureOfError(error));
  } finally {
    response.off('close', onClose);
  }
  if (result.kind === 'denied') return answer(request, response, failureOfRefusal(result.refusal));
  if (result.serverNames !== undefined) {
    const reason = 'sni-not-tls';
    result.tunnel.cancel();
    const message = gate.refuseServerName(result.tunnel, reason, result.serverNames);
    return answer(request, response, failureOfRefusal({ reason, message }));
  }
  forward(result.tunnel, uri, request, response);
}

function forward(tunnel: Tunnel, uri: AbsoluteUri, request: IncomingMessage, response: ServerResponse): void {
  if (response.destroyed) {
    tunnel.cancel();
    return;
  }
  const upstream = openRequest(tunnel, uri, request);
  /** Whose answer the client gets. */
  let answerOf: 'nobody' | 'origin' | 'proxy' = 'nobody';
  const giveUp = (cause: Error): void => {
    clearTimeout(timer);
    tunnel.cancel();
    upstream.destroy();
    if (answerOf === 'origin' && !response.writableEnded) breakOff(response);
    if (answerOf !== 'nobody') return;
    answerOf = 'proxy';
    answer(request, response, failureOfError(upstreamError(cause, uri)));
  };
  const timer = setTimeout(() => {
    giveUp(new PosternError('ERR_FLOW_TIMEOUT', `${uri.host} did not answer in ${RESPONSE_TIMEOUT_MS} ms`));
  }, RESPONSE_TIMEOUT_MS);
  upstream.once('close', () => {
    // An answer that node:http drops without an error: 101, which nobody asked for.
    if (answerOf === 'nobody') giveUp(new Error('it changed the protocol'));
  });
  upstream.on('error', giveUp);
  upstream.on('continue', () => {
    if (!response.headersSent && !response.destroyed) response.writeContinue();
  });
  upstream.on('response', (incoming) => {
    clearTimeout(timer);
    const { statusCode = 0 } = incoming;
    // node:http reads a status such as 099, and throws when it is to write it.
    if (statusCode < 200) return giveUp(new Error(`status ${statusCode}`));
    if (answerOf !== 'nobody') return;
    answerOf = 'origin';
    relay(tunnel, incoming, request, response);
  });
  response.once('close', () => {
    // The client went away in the middle, or all is sent; either way the flow has done its work.
    if (!response.writableFinished) tunnel.cancel();
    upstream.destroy();
  });
  request.once('error', giveUp);
  request.pipe(upstream);
}

function openRequest({ stream }: Tunnel, uri: AbsoluteUri, request: IncomingMessage): ClientRequest {
  const headers = ['Host', uri.hostHeader, ...endToEndHeaders(request.rawHeaders, REPLACED)];
  const length = request.headers['content-length'];
  if (request.headers['transfer-encoding'] !== undefined) headers.push('Transfer-Encoding', 'chunked');
  else if (length !== undefined) headers.push('Content-Length', length);
  if (request.headers.expect !== undefined) headers.push('Expect', '100-continue');
  headers.push('Connection', 'close');
  const { method = 'GET' } = request;
  const upstream = httpRequest({
    method,
    path: uri.path,
    // The raw list is what keeps order and spelling; node:http takes it, though its types know objects only.
    headers: headers as unknown as Record<string, string>,
    setHost: false,
    maxHeaderSize: HEADERS_MAX_BYTES,
    // Given this, node:http uses no agent, and so no pool.
    createConnection: () => stream,
  });
  // Without a length of its own the request has no body, and node:http would frame an empty one.
  if (length === undefined && request.headers['transfer-encoding'] === undefined) {
    upstream.useChunkedEncodingByDefault = false;
  }
  return upstream;
}

function relay(
  tunnel: Tunnel,
  incoming: IncomingMessage,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const headers = endToEndHeaders(incoming.rawHeaders);
  // Bytes of a body that nobody reads must not be taken for the next request.
  if (!request.complete) headers.push('Connection', 'close');
  response.writeHead(incoming.statusCode ?? 502, writableText(incoming.statusMessage ?? ''), headers);
  incoming.once('error', () => {
    tunnel.cancel();
    breakOff(response);
  });
  incoming.pipe(response);
}

/** A reason phrase as RFC 9112 section 4 has it; an origin may send any bytes, and node:http would not write them. */
function writableText(text: string): string {
  return /^[\t\x20-\x7e\x80-\xff]*$/.test(text) ? text : '';
}

/** By a reset: the client must not take half an answer for a whole one, whatever frames its end. */
function breakOff(response: ServerResponse): void {
  response.socket?.resetAndDestroy();
  response.destroy();
}

/** The proxy's own answer. */
function answer(request: IncomingMessage, response: ServerResponse, failure: HttpFailure): void {
  if (response.destroyed || response.headersSent) return;
  const { headers, body } = renderFailure(failure);
  response.writeHead(failure.status, headers);
  response.end(body);
  request.resume();
}

function upstreamError(cause: Error, { host }: AbsoluteUri): PosternError {
  if (isPosternError(cause)) return cause;
  return new PosternError('ERR_TRANSPORT_CLOSED', `${host} gave no usable answer: ${cause.message}`, {
    cause,
  });
}

function targetProblem(target: string): string {
  if (/^https:/i.test(target)) return 'for https use CONNECT, as every HTTP client does behind a proxy';
  if (target.startsWith('/')) return 'this is a proxy: the request target must be a whole http:// address';
  return 'the request target is no http:// address without user information';
}
