import { STATUS_CODES } from 'node:http';
import type { ErrorCode, PosternError } from '../../shared/errors.ts';
import type { Refusal } from '../flow/gate.ts';

/** An answer that the proxy gives itself. `error` is a proxy error type of RFC 9209 section 2.3. */
export interface HttpFailure {
  readonly status: number;
  readonly error: string;
  /** A short code for programs. */
  readonly details: string;
  /** For a person. */
  readonly message: string;
}

const BY_CODE: Partial<Record<ErrorCode, readonly [status: number, error: string]>> = {
  ERR_FLOW_DENIED: [403, 'http_request_denied'],
  ERR_FLOW_REFUSED: [502, 'connection_refused'],
  ERR_FLOW_UNREACHABLE: [502, 'destination_ip_unroutable'],
  ERR_FLOW_TIMEOUT: [504, 'connection_timeout'],
  ERR_FLOW_LIMIT: [503, 'connection_limit_reached'],
  ERR_RESOLVE_NOT_FOUND: [502, 'dns_error'],
  ERR_RESOLVE_FAILED: [502, 'dns_error'],
  ERR_SESSION_LOST: [503, 'destination_unavailable'],
  ERR_WIRE_TIMEOUT: [504, 'connection_timeout'],
  ERR_TRANSPORT_TIMEOUT: [504, 'connection_timeout'],
  ERR_TRANSPORT_CLOSED: [502, 'connection_terminated'],
};

export function failureOfError(error: PosternError): HttpFailure {
  const [status, type] = BY_CODE[error.code] ?? [502, 'proxy_internal_error'];
  return { status, error: type, details: error.code, message: error.message };
}

export function failureOfRefusal({ reason, message }: Refusal): HttpFailure {
  return { status: 403, error: 'http_request_denied', details: reason, message };
}

export function badRequest(message: string): HttpFailure {
  return { status: 400, error: 'http_request_error', details: 'bad-request', message };
}

/** Raw headers and body of the answer; the connection closes behind it, as what follows may not be a request. */
export function renderFailure(failure: HttpFailure): { readonly headers: string[]; readonly body: Buffer } {
  const body = Buffer.from(`Postern: ${printable(failure.message)}\n`);
  const headers = [
    ...['Proxy-Status', `postern; error=${failure.error}; details="${failure.details}"`],
    ...['Content-Type', 'text/plain; charset=utf-8'],
    ...['Content-Length', String(body.length)],
    ...['Cache-Control', 'no-store'],
    ...['Connection', 'close'],
  ];
  return { headers, body };
}

/** The whole answer as bytes, for a socket that is no longer node:http's. */
export function renderFailureMessage(failure: HttpFailure): Buffer {
  const { headers, body } = renderFailure(failure);
  let head = `HTTP/1.1 ${failure.status} ${STATUS_CODES[failure.status] ?? 'Error'}\r\n`;
  for (let index = 0; index < headers.length; index += 2)
    head += `${headers[index]}: ${headers[index + 1]}\r\n`;
  return Buffer.concat([Buffer.from(`${head}\r\n`, 'latin1'), body]);
}

function printable(text: string): string {
  return text.replace(/[^\x20-\x7e’]/g, '?');
}
