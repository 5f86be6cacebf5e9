import type { Socket } from 'node:net';
import { PosternError } from '../../shared/errors.ts';
import type { SniReason } from '../../shared/policy/reasons.ts';
import { decideServerName } from '../../shared/policy/sni.ts';
import { ClientHelloReader } from '../../shared/tls/client-hello.ts';

/** A TLS client speaks first, at once. */
export const CLIENT_HELLO_TIMEOUT_MS = 10_000;

/**
 * Waits for the application's ClientHello and lets the policy judge its server name, which must be one of `expected`
 * (canonical). Resolves with why not, or with undefined. The bytes stay in the socket.
 * @throws PosternError ERR_WIRE_TIMEOUT, ERR_TRANSPORT_CLOSED
 */
export function judgeServerName(local: Socket, expected: readonly string[]): Promise<SniReason | undefined> {
  return new Promise((resolve, reject) => {
    const reader = new ClientHelloReader();
    const pieces: Buffer[] = [];
    const settle = (): void => {
      clearTimeout(timer);
      local.off('data', onData).off('end', onEnd).off('close', onEnd).pause();
      if (pieces.length > 0 && !local.destroyed && !local.readableEnded) local.unshift(Buffer.concat(pieces));
    };
    const fail = (error: PosternError): void => {
      settle();
      reject(error);
    };
    const onEnd = (): void => fail(new PosternError('ERR_TRANSPORT_CLOSED', 'no TLS ClientHello came'));
    const onData = (piece: Buffer): void => {
      pieces.push(piece);
      const decision = decideServerName(expected, reader.push(piece));
      if (decision.verdict === 'more') return;
      settle();
      resolve(decision.verdict === 'deny' ? decision.reason : undefined);
    };
    const timer = setTimeout(() => {
      const text = `no TLS ClientHello came in ${CLIENT_HELLO_TIMEOUT_MS} ms`;
      fail(new PosternError('ERR_WIRE_TIMEOUT', text));
    }, CLIENT_HELLO_TIMEOUT_MS);
    local.on('data', onData).on('end', onEnd).on('close', onEnd).resume();
  });
}
