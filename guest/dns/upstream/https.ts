import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { isPosternError, PosternError } from '../../../shared/errors.ts';
import type { ConnectStream } from './connect.ts';
import { padQuery } from './padding.ts';
import { answersQuery } from './query.ts';
import type { Upstream } from './upstream.ts';

const MEDIA_TYPE = 'application/dns-message';
const MESSAGE_MAX_BYTES = 65_535;
/** As for other kept connections: ended by us before the resolver ends it under a question. */
const IDLE_TIMEOUT_MS = 5_000;
const STATUS_OK = 200;

/** DNS over HTTPS (RFC 8484): POST over one kept HTTP/2 session. `connectTls` gives a TLS stream that agreed on h2. */
export class HttpsUpstream implements Upstream {
  readonly name: string;
  readonly #authority: string;
  readonly #path: string;
  readonly #connectTls: ConnectStream;
  #session: Promise<ClientHttp2Session> | undefined;

  constructor(name: string, authority: string, path: string, connectTls: ConnectStream) {
    this.name = name;
    this.#authority = authority;
    this.#path = path;
    this.#connectTls = connectTls;
  }

  async exchange(query: Buffer, { signal }: { readonly signal: AbortSignal }): Promise<Buffer> {
    // Section 4.1: id 0, so that HTTP caches see equal questions as equal.
    const asked = Buffer.from(query);
    asked.writeUInt16BE(0, 0);
    try {
      const isReused = this.#session !== undefined;
      const answer = await this.#post(asked, signal).catch((error: unknown) => {
        if (!isReused || signal.aborted) throw error;
        return this.#post(asked, signal);
      });
      if (!answersQuery(answer, asked)) throw new Error('the answer is not to the question');
      query.copy(answer, 0, 0, 2);
      return answer;
    } catch (error) {
      if (signal.aborted) throw new PosternError('ERR_DNS_TIMEOUT', `${this.name} did not answer in time`);
      if (isPosternError(error, 'ERR_DNS_UPSTREAM')) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      throw new PosternError('ERR_DNS_UPSTREAM', `${this.name}: ${reason}`, { cause: error });
    }
  }

  async #post(query: Buffer, signal: AbortSignal): Promise<Buffer> {
    const session = await (this.#session ?? this.#open(signal));
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_AUTHORITY]: this.#authority,
      [constants.HTTP2_HEADER_PATH]: this.#path,
      [constants.HTTP2_HEADER_ACCEPT]: MEDIA_TYPE,
      [constants.HTTP2_HEADER_CONTENT_TYPE]: MEDIA_TYPE,
    });
    session.ref();
    try {
      stream.end(padQuery(query));
      return await readAnswer(stream, signal);
    } finally {
      stream.close();
      session.unref();
    }
  }

  #open(signal: AbortSignal): Promise<ClientHttp2Session> {
    const forget = (): void => {
      if (this.#session === opening) this.#session = undefined;
    };
    const opening: Promise<ClientHttp2Session> = this.#connectTls(signal).then((socket) => {
      const session = connect(`https://${this.#authority}`, { createConnection: () => socket });
      session.setTimeout(IDLE_TIMEOUT_MS, () => session.close());
      session.on('close', forget);
      session.on('goaway', forget);
      session.on('error', () => {
        forget();
        session.destroy();
      });
      session.unref();
      return session;
    });
    opening.catch(forget);
    this.#session = opening;
    return opening;
  }
}

function readAnswer(stream: ClientHttp2Stream, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    const fail = (reason: string): void => {
      reject(new Error(reason));
      stream.close(constants.NGHTTP2_CANCEL);
    };
    const onAbort = (): void => fail('aborted');
    signal.addEventListener('abort', onAbort, { once: true });
    stream.on('close', () => {
      signal.removeEventListener('abort', onAbort);
      reject(new Error('the stream ended before the answer'));
    });
    stream.on('error', reject);
    stream.on('response', (headers) => {
      const status = headers[constants.HTTP2_HEADER_STATUS];
      const type = headers[constants.HTTP2_HEADER_CONTENT_TYPE];
      if (Number(status) !== STATUS_OK) fail(`HTTP status ${status}`);
      else if (type !== MEDIA_TYPE) fail(`content of type ${type}`);
    });
    stream.on('data', (chunk: Buffer) => {
      sizeBytes += chunk.length;
      chunks.push(chunk);
      if (sizeBytes > MESSAGE_MAX_BYTES) fail('an answer over 65,535 octets');
    });
    stream.on('end', () => resolve(Buffer.concat(chunks)));
  });
}
