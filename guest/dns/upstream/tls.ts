import type { Duplex } from 'node:stream';
import { connect, type TLSSocket } from 'node:tls';
import { PosternError } from '../../../shared/errors.ts';
import type { ConnectStream } from './connect.ts';

export interface TlsOptions {
  /** What the certificate must be for; authentication is never left out (RFC 8310 section 5, strict). */
  readonly serverName: string;
  /** PEM certificates to trust instead of the bundled ones. */
  readonly ca?: string;
  /** The application protocol to agree on: `dot` or `h2`. */
  readonly protocol: 'dot' | 'h2';
}

/** TLS 1.2 or later over a stream, ended here: the parent that carries it sees its length and nothing else. */
export function overTls(connectStream: ConnectStream, options: TlsOptions): ConnectStream {
  return async (signal) => {
    const stream = await connectStream(signal);
    try {
      return await handshake(stream, options, signal);
    } catch (cause) {
      stream.destroy();
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new PosternError('ERR_DNS_UPSTREAM', `TLS with ${options.serverName}: ${reason}`, { cause });
    }
  };
}

function handshake(stream: Duplex, options: TlsOptions, signal: AbortSignal): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      socket: stream,
      servername: options.serverName,
      ALPNProtocols: [options.protocol],
      minVersion: 'TLSv1.2',
      ...(options.ca === undefined ? {} : { ca: options.ca }),
    });
    const onAbort = (): void => {
      socket.destroy(new Error('the handshake was not over in time'));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    const settle = (finish: () => void): void => {
      signal.removeEventListener('abort', onAbort);
      socket.removeListener('error', onError);
      finish();
    };
    const onError = (error: Error): void => settle(() => reject(error));
    socket.once('error', onError);
    socket.once('secureConnect', () => {
      // HTTP/2 needs both to have agreed on it; for DNS over TLS many resolvers say nothing (RFC 7858 section 3.1).
      if (options.protocol === 'h2' && socket.alpnProtocol !== 'h2') {
        settle(() => reject(new Error('the resolver does not speak HTTP/2')));
        socket.destroy();
      } else {
        settle(() => resolve(socket));
      }
    });
  });
}
