import { randomInt } from 'node:crypto';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { isPosternError, PosternError } from '../../../shared/errors.ts';
import type { ConnectStream } from './connect.ts';
import { FrameReader, frame } from './frames.ts';
import { answersQuery } from './query.ts';
import type { Upstream } from './upstream.ts';

/** Questions at once on one connection; many resolvers close one that has more. */
const PIPELINE_MAX = 100;
/** A connection without a question is ended, before the resolver does it in the middle of our next one. */
const IDLE_TIMEOUT_MS = 5_000;
/** Messages that answer no open question, after which the connection is given up. */
const STRAYS_MAX = 16;

interface Pending {
  readonly query: Buffer;
  readonly resolve: (answer: Buffer) => void;
  readonly reject: (error: Error) => void;
}

/**
 * DNS over a stream (RFC 7766): one connection, kept and pipelined, answers in any order. TCP and TLS alike; what is
 * under it is `connect`'s. `wrap` changes a question before it is sent (padding).
 */
export class PipelinedUpstream implements Upstream {
  readonly name: string;
  readonly #connect: ConnectStream;
  readonly #wrap: (query: Buffer) => Buffer;
  #connection: Promise<Connection> | undefined;

  constructor(name: string, connect: ConnectStream, wrap: (query: Buffer) => Buffer = (query) => query) {
    this.name = name;
    this.#connect = connect;
    this.#wrap = wrap;
  }

  async exchange(query: Buffer, { signal }: { readonly signal: AbortSignal }): Promise<Buffer> {
    try {
      const isReused = this.#connection !== undefined;
      try {
        return await this.#ask(query, signal);
      } catch (error) {
        // A kept connection may have been ended by the resolver just now (RFC 7766 section 6.2.4): once more, anew.
        if (!isReused || signal.aborted) throw error;
        return await this.#ask(query, signal);
      }
    } catch (error) {
      if (signal.aborted) throw new PosternError('ERR_DNS_TIMEOUT', `${this.name} did not answer in time`);
      if (isPosternError(error, 'ERR_DNS_UPSTREAM')) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      throw new PosternError('ERR_DNS_UPSTREAM', `${this.name}: ${reason}`, { cause: error });
    }
  }

  async #ask(query: Buffer, signal: AbortSignal): Promise<Buffer> {
    const mine = this.#connection ?? this.#open(signal);
    const connection = await mine;
    return connection.exchange(query, this.#wrap(query), signal);
  }

  #open(signal: AbortSignal): Promise<Connection> {
    const forget = (): void => {
      if (this.#connection === opening) this.#connection = undefined;
    };
    const opening: Promise<Connection> = this.#connect(signal).then(
      (stream) => new Connection(stream, forget),
    );
    opening.catch(forget);
    this.#connection = opening;
    return opening;
  }
}

class Connection {
  readonly #stream: Duplex;
  readonly #reader = new FrameReader();
  readonly #pending = new Map<number, Pending>();
  #idle: NodeJS.Timeout | undefined;
  #strayCount = 0;

  constructor(stream: Duplex, onEnd: () => void) {
    this.#stream = stream;
    const end = (error?: Error): void => {
      onEnd();
      stream.destroy();
      clearTimeout(this.#idle);
      const reason = error ?? new Error('the connection ended before the answer');
      for (const { reject } of this.#pending.values()) reject(reason);
      this.#pending.clear();
    };
    stream.on('error', end);
    stream.on('end', end);
    stream.on('close', () => end());
    stream.on('data', (chunk: Buffer) => {
      for (const message of this.#reader.push(chunk)) this.#take(message, end);
    });
    this.#rest();
  }

  exchange(query: Buffer, wrapped: Buffer, signal: AbortSignal): Promise<Buffer> {
    if (this.#stream.destroyed) return Promise.reject(new Error('the connection has ended'));
    if (this.#pending.size >= PIPELINE_MAX) return Promise.reject(new Error('too many questions at once'));
    // Ids must differ on one connection; the caller's own is put back into the answer.
    let id = query.readUInt16BE(0);
    while (this.#pending.has(id)) id = randomInt(0x10000);
    const sent = Buffer.from(wrapped);
    sent.writeUInt16BE(id, 0);
    const asked = Buffer.from(query);
    asked.writeUInt16BE(id, 0);
    return new Promise<Buffer>((resolve, reject) => {
      const finish = (): void => {
        signal.removeEventListener('abort', onAbort);
        this.#pending.delete(id);
        this.#rest();
      };
      const onAbort = (): void => {
        finish();
        reject(new Error('aborted'));
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#pending.set(id, {
        query: asked,
        resolve: (answer) => {
          finish();
          query.copy(answer, 0, 0, 2);
          resolve(answer);
        },
        reject: (error) => {
          finish();
          reject(error);
        },
      });
      this.#wake();
      this.#stream.write(frame(sent));
    });
  }

  #take(message: Buffer, end: (error: Error) => void): void {
    const pending = message.length < 2 ? undefined : this.#pending.get(message.readUInt16BE(0));
    if (pending !== undefined && answersQuery(message, pending.query)) {
      // Its own octets: the chunk it stands in may hold others' answers.
      pending.resolve(Buffer.from(message));
      return;
    }
    this.#strayCount += 1;
    if (this.#strayCount > STRAYS_MAX) end(new Error('messages that answer no question'));
  }

  #wake(): void {
    clearTimeout(this.#idle);
    if (this.#stream instanceof Socket) this.#stream.ref();
  }

  /** Without a question, the connection is nothing to stay alive for. */
  #rest(): void {
    if (this.#pending.size > 0) return;
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#stream.destroy(), IDLE_TIMEOUT_MS).unref();
    if (this.#stream instanceof Socket) this.#stream.unref();
  }
}
