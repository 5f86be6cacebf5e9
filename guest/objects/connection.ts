import { isPosternError, PosternError } from '../../shared/errors.ts';
import { allocateBody } from '../../shared/objects/bodies.ts';
import { corrupt, unavailable } from '../../shared/objects/failure.ts';
import { receiveBytes } from '../../shared/objects/receive.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import {
  INLINE_MAX_BYTES,
  OBJECT_VERSION_MAX,
  OBJECT_VERSION_MIN,
  type ObjectFrame,
  type ObjectReply,
  type ObjectRequest,
} from '../../shared/wire/object.ts';
import { ObjectFrameDecoder } from '../../shared/wire/object-decoder.ts';
import { ObjectWriter } from '../../shared/wire/object-writer.ts';
import { bodyBytes, mostBytes } from './expected.ts';
import { type Answer, letGo, lossOf, newOutstanding, type Outstanding } from './outstanding.ts';

/** A parent answers a CANCEL as soon as its store lets go; one that does not in this time is stuck. */
const CANCEL_TIMEOUT_MS = 30_000;
const LAST_REQUEST_ID = 0xffffffff;
const NOTHING = Buffer.alloc(0);

/**
 * The client's half of object.md over one stream. It keeps nothing that it did not ask for: memory for an answer is
 * allotted once its size is known and allowed, and whatever the protocol does not allow ends the stream.
 */
export class ObjectConnection {
  readonly #stream: Stream;
  readonly #writer: ObjectWriter;
  readonly #outstanding = new Map<number, Outstanding>();
  readonly #welcome = Promise.withResolvers<void>();
  #greeted = false;
  #maxRequests = 0;
  #lastRequestId = 0;
  #open = true;
  #draining = false;

  private constructor(origin: Stream) {
    const decoder = new ObjectFrameDecoder({
      frame: (frame) => this.#onFrame(frame),
      data: (requestId, piece) => this.#onData(requestId, piece),
    });
    const stream = receiveBytes(origin, (piece) => this.#guard(() => decoder.push(piece)));
    this.#stream = stream;
    this.#writer = new ObjectWriter(stream);
    stream.on('error', () => {
      // 'close' follows.
    });
    stream.once('end', () => this.#fail(unavailable('the parent ended the object stream')));
    stream.once('close', () => this.#fail(unavailable('the object stream is closed')));
    if (stream.destroyed) this.#fail(unavailable('the object stream is closed'));
    else stream.resume();
  }

  /**
   * Greets the parent over a stream of kind `object` whose reply was ok, and owns the stream from now on.
   * @throws PosternError ERR_STORE_UNAVAILABLE, ERR_STORE_CORRUPT, ERR_WIRE_VERSION
   */
  static async greet(stream: Stream, timeoutMs: number): Promise<ObjectConnection> {
    const connection = new ObjectConnection(stream);
    const timer = setTimeout(() => connection.#fail(unavailable('the parent does not greet')), timeoutMs);
    const hello = { type: 'hello', minVersion: OBJECT_VERSION_MIN, maxVersion: OBJECT_VERSION_MAX } as const;
    void connection.#writer.send(hello);
    try {
      await connection.#welcome.promise;
      return connection;
    } finally {
      clearTimeout(timer);
    }
  }

  get isUsable(): boolean {
    return this.#open && !this.#draining && this.#lastRequestId < LAST_REQUEST_ID;
  }

  /** Bytes that requests of this connection have still to send or receive, with a little for each request. */
  get loadBytes(): number {
    let bytes = 0;
    for (const { request } of this.#outstanding.values()) bytes += 512 + mostBytes(request);
    return bytes;
  }

  /**
   * Sends a request and waits for its whole answer. Once the signal aborts it is cancelled, and the caller has the
   * error at once.
   * @throws PosternError ERR_STORE_UNAVAILABLE, ERR_STORE_AMBIGUOUS, ERR_STORE_CORRUPT
   */
  call(request: ObjectRequest, sending: Buffer, signal: AbortSignal): Promise<Answer> {
    if (!this.isUsable) throw unavailable('the object stream is closed');
    if (this.#outstanding.size >= this.#maxRequests) throw unavailable('the parent takes no more requests');
    this.#lastRequestId += 1;
    const requestId = this.#lastRequestId;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => this.#cancel(requestId, signal.reason);
      const settle = {
        resolve(answer: Answer): void {
          signal.removeEventListener('abort', onAbort);
          resolve(answer);
        },
        reject(error: PosternError): void {
          signal.removeEventListener('abort', onAbort);
          reject(error);
        },
      };
      const outstanding = newOutstanding(request, sending, settle);
      this.#outstanding.set(requestId, outstanding);
      signal.addEventListener('abort', onAbort, { once: true });
      void this.#writer.send({ type: 'request', requestId, request });
      if (sending.length <= INLINE_MAX_BYTES) this.#sendBody(requestId, outstanding);
    });
  }

  /** Ends the stream; what is under way fails as if the parent had gone. */
  close(): void {
    this.#fail(unavailable('the object stream was closed'));
  }

  #sendBody(requestId: number, outstanding: Outstanding): void {
    outstanding.started = true;
    void this.#writer.sendBody(requestId, outstanding.sending).then((end) => {
      outstanding.isWritten = end === 'sent';
    });
  }

  /** Every byte of a PUT is with the stream: whether it happens is up to the parent. */
  #isSent(requestId: number, { request, started }: Outstanding): boolean {
    return request.op === 'put' && started && !this.#writer.hasBody(requestId);
  }

  #cancel(requestId: number, reason: unknown): void {
    const outstanding = this.#outstanding.get(requestId);
    if (outstanding?.settle === undefined) return;
    const { settle } = outstanding;
    const error = lossOf(this.#isSent(requestId, outstanding), unavailable('given up', reason));
    outstanding.settle = undefined;
    letGo(outstanding);
    outstanding.sending = NOTHING;
    if (outstanding.arriving !== undefined) outstanding.arriving.body = NOTHING;
    this.#writer.dropBody(requestId);
    void this.#writer.send({ type: 'cancel', requestId });
    outstanding.cancelTimer = setTimeout(() => {
      this.#fail(unavailable('the parent does not answer a cancelled request'));
    }, CANCEL_TIMEOUT_MS);
    outstanding.cancelTimer.unref();
    settle.reject(error);
  }

  #guard(work: () => void): void {
    if (!this.#open) return;
    try {
      work();
    } catch (error) {
      if (!isPosternError(error)) throw error;
      this.#fail(error.code === 'ERR_STORE_CORRUPT' ? error : corrupt(error.message, error));
    }
  }

  #onFrame(frame: ObjectFrame): void {
    if (!this.#open) return;
    if (frame.type === 'bye') {
      this.#onBye(frame);
      return;
    }
    if (!this.#greeted) {
      this.#onWelcome(frame);
      return;
    }
    if (frame.type === 'reply') this.#onReply(frame.requestId, frame.reply);
    else if (frame.type === 'grant') this.#onGrant(frame.requestId);
    else throw corrupt(`${frame.type} from the parent`);
  }

  #onBye(frame: Extract<ObjectFrame, { type: 'bye' }>): void {
    if (frame.reason === 'draining') {
      this.#draining = true;
      this.#endWhenIdle();
    } else if (frame.reason === 'version') {
      this.#fail(new PosternError('ERR_WIRE_VERSION', `object stream: ${frame.detail}`));
    } else {
      this.#fail(unavailable(`the parent ended the object stream: ${frame.reason}, ${frame.detail}`));
    }
  }

  #onWelcome(frame: ObjectFrame): void {
    if (frame.type !== 'welcome') throw corrupt(`${frame.type} before WELCOME`);
    if (frame.version < OBJECT_VERSION_MIN || frame.version > OBJECT_VERSION_MAX) {
      throw corrupt(`WELCOME in version ${frame.version}, which was not offered`);
    }
    this.#greeted = true;
    this.#maxRequests = frame.maxRequests;
    this.#welcome.resolve();
  }

  #onGrant(requestId: number): void {
    const outstanding = this.#find(requestId);
    const { request } = outstanding;
    const due = request.op === 'put' && request.sizeBytes > INLINE_MAX_BYTES && !outstanding.granted;
    if (!due || outstanding.arriving !== undefined) throw corrupt(`GRANT for request ${requestId}`);
    outstanding.granted = true;
    if (outstanding.settle !== undefined) this.#sendBody(requestId, outstanding);
  }

  #onReply(requestId: number, reply: ObjectReply): void {
    const outstanding = this.#find(requestId);
    if (outstanding.arriving !== undefined) {
      const cancelled = reply.status === 'cancelled' && outstanding.settle === undefined;
      if (!cancelled) throw corrupt(`a second reply to request ${requestId}`);
      this.#finish(requestId, outstanding, reply, NOTHING);
      return;
    }
    const sizeBytes = bodyBytes(outstanding.request, reply, this.#isSent(requestId, outstanding));
    if (sizeBytes === 0) {
      this.#finish(requestId, outstanding, reply, NOTHING);
      return;
    }
    const kept = outstanding.settle === undefined ? 0 : sizeBytes;
    outstanding.arriving = { reply, sizeBytes, body: allocateBody(kept), filledBytes: 0 };
  }

  #onData(requestId: number, piece: Buffer): void {
    if (!this.#open) return;
    const outstanding = this.#find(requestId);
    const { arriving } = outstanding;
    if (arriving === undefined || arriving.filledBytes + piece.length > arriving.sizeBytes) {
      throw corrupt(`DATA that request ${requestId} has no place for`);
    }
    if (outstanding.settle !== undefined) piece.copy(arriving.body, arriving.filledBytes);
    arriving.filledBytes += piece.length;
    if (arriving.filledBytes === arriving.sizeBytes) {
      this.#finish(requestId, outstanding, arriving.reply, arriving.body);
    }
  }

  #find(requestId: number): Outstanding {
    const outstanding = this.#outstanding.get(requestId);
    if (outstanding === undefined) throw corrupt(`an answer to request ${requestId}, which is not under way`);
    return outstanding;
  }

  #finish(requestId: number, outstanding: Outstanding, reply: ObjectReply, body: Buffer): void {
    this.#outstanding.delete(requestId);
    letGo(outstanding);
    this.#writer.dropBody(requestId);
    clearTimeout(outstanding.cancelTimer);
    outstanding.settle?.resolve({ reply, body });
    this.#endWhenIdle();
  }

  #endWhenIdle(): void {
    if (this.#draining && this.#outstanding.size === 0) this.#fail(unavailable('the parent drains'));
  }

  /** The end of the stream, once: everybody who still waits is told. */
  #fail(error: PosternError): void {
    if (!this.#open) return;
    this.#open = false;
    this.#welcome.promise.catch(() => {
      // Where nobody waits for the greeting any more.
    });
    this.#welcome.reject(error);
    for (const [requestId, outstanding] of this.#outstanding) {
      clearTimeout(outstanding.cancelTimer);
      letGo(outstanding);
      outstanding.settle?.reject(lossOf(this.#isSent(requestId, outstanding), error));
      outstanding.settle = undefined;
    }
    this.#outstanding.clear();
    this.#stream.destroy();
  }
}
