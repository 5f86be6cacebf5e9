import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import { isPosternError, PosternError } from '../../../shared/errors.ts';
import { answersQuery } from './query.ts';
import { addressText, type SocketAddress } from './udp.ts';
import type { Upstream } from './upstream.ts';

/** Opens a stream to the resolver; the caller ends it. Rejects when the signal aborts. */
export type ConnectStream = (signal: AbortSignal) => Promise<Duplex>;

/** DNS over TCP (RFC 7766), one connection an exchange: it is the way for what did not go over UDP. */
export function tcpUpstream(name: string, connectStream: ConnectStream): Upstream {
  return {
    name,
    async exchange(query, { signal }) {
      try {
        const stream = await connectStream(signal);
        try {
          return await exchangeOver(stream, query, signal);
        } finally {
          stream.destroy();
        }
      } catch (error) {
        if (signal.aborted) throw new PosternError('ERR_DNS_TIMEOUT', `${name} did not answer in time`);
        if (isPosternError(error)) throw error;
        const reason = error instanceof Error ? error.message : String(error);
        throw new PosternError('ERR_DNS_UPSTREAM', `${name}: ${reason}`, { cause: error });
      }
    },
  };
}

/** TCP from this machine. */
export function directTcp(server: SocketAddress): ConnectStream {
  return (signal) =>
    new Promise((resolve, reject) => {
      const socket = connect({ host: server.address, port: server.port, signal, noDelay: true });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.removeListener('error', reject);
        resolve(socket);
      });
    });
}

export function directTcpUpstream(server: SocketAddress): Upstream {
  return tcpUpstream(`${addressText(server)} over TCP`, directTcp(server));
}

/** Two octets of length, then the message (RFC 1035 section 4.2.2). */
export function frame(message: Buffer): Buffer {
  const framed = Buffer.alloc(2 + message.length);
  framed.writeUInt16BE(message.length);
  message.copy(framed, 2);
  return framed;
}

function exchangeOver(stream: Duplex, query: Buffer, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const reader = new FrameReader();
    const onAbort = (): void => {
      stream.destroy();
      reject(new Error('aborted'));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    stream.on('error', reject);
    stream.on('close', () => {
      signal.removeEventListener('abort', onAbort);
      reject(new Error('the connection ended before the answer'));
    });
    stream.on('data', (chunk: Buffer) => {
      const [message] = reader.push(chunk);
      if (message === undefined) return;
      if (answersQuery(message, query)) resolve(message);
      else reject(new Error('the answer is not to the question'));
    });
    stream.write(frame(query));
  });
}

/** Takes a byte stream apart into messages; holds at most one unfinished message (65,537 octets) and a chunk. */
export class FrameReader {
  #held: Buffer = Buffer.alloc(0);

  push(chunk: Buffer): Buffer[] {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    const messages: Buffer[] = [];
    while (this.#held.length >= 2) {
      const end = 2 + this.#held.readUInt16BE(0);
      if (this.#held.length < end) break;
      messages.push(this.#held.subarray(2, end));
      this.#held = this.#held.subarray(end);
    }
    return messages;
  }
}
