import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { isPosternError } from '../../shared/errors.ts';
import type { Gate, GateResult } from '../flow/gate.ts';
import { parseAuthority } from './authority.ts';
import { dismissClient, joinClient, whileConnected } from './client-socket.ts';
import {
  badRequest,
  failureOfError,
  failureOfRefusal,
  type HttpFailure,
  renderFailureMessage,
} from './http-failure.ts';

const ESTABLISHED = Buffer.from('HTTP/1.1 200 Connection Established\r\n\r\n');

/** CONNECT (RFC 9110 section 9.3.6): a tunnel to host:port, `head` being what the client sent behind the request. */
export async function serveConnect(
  gate: Gate,
  request: IncomingMessage,
  socket: Socket,
  head: Buffer,
): Promise<void> {
  socket.on('error', () => {});
  const authority = parseAuthority(request.url ?? '');
  if (authority === undefined) return hangUp(socket, badRequest('CONNECT takes host:port'));
  if (head.length > 0) socket.unshift(head);
  let result: GateResult;
  try {
    result = await whileConnected(socket, (gone) =>
      gate.connect({ ...authority, via: 'http-connect' }, gone),
    );
  } catch (error) {
    if (!isPosternError(error)) throw error;
    return hangUp(socket, failureOfError(error));
  }
  if (result.kind === 'denied') return hangUp(socket, failureOfRefusal(result.refusal));
  await joinClient(gate, socket, result, ESTABLISHED);
}

function hangUp(socket: Socket, failure: HttpFailure): void {
  dismissClient(socket, renderFailureMessage(failure));
}
