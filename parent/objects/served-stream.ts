import { PosternError } from '../../shared/errors.ts';
import type { ByteBudget } from '../../shared/objects/budget.ts';
import { unavailable } from '../../shared/objects/failure.ts';
import { receiveBytes } from '../../shared/objects/receive.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import {
  type ByeReason,
  INLINE_MAX_BYTES,
  OBJECT_VERSION_MAX,
  OBJECT_VERSION_MIN,
  type ObjectFrame,
  type ObjectRequest,
} from '../../shared/wire/object.ts';
import { ObjectFrameDecoder } from '../../shared/wire/object-decoder.ts';
import { ObjectWriter } from '../../shared/wire/object-writer.ts';
import { Cancelled, fillBody, incomingBody } from './incoming-body.ts';
import { Operations, type OperationsOptions, type Served } from './operations.ts';

/** For a BYE to reach a peer that reads; one that does not loses it. */
const BYE_LINGER_MS = 1000;

export interface ServedStreamOptions extends OperationsOptions {
  readonly maxRequests: number;
  readonly helloTimeoutMs: number;
}

/** How a stream ended: `violation` says what the guest sent that the protocol does not allow. */
export interface ServedOutcome {
  readonly requestCount: number;
  readonly violation: string | undefined;
}

/**
 * The server's half of object.md over one stream. States: before HELLO (a timer runs), serving, and closed; a request
 * lives from its REQUEST until its last frame is with the stream, and counts against `maxRequests` for that time.
 */
export class ServedStream {
  readonly #stream: Stream;
  readonly #options: ServedStreamOptions;
  readonly #writer: ObjectWriter;
  readonly #operations: Operations;
  readonly #decoder: ObjectFrameDecoder;
  readonly #requests = new Map<number, Served>();
  readonly #idle = new Set<Promise<void>>();
  readonly #bug = Promise.withResolvers<never>();
  #greeted = false;
  #lastRequestId = 0;
  #requestCount = 0;
  #violation: string | undefined;

  constructor(origin: Stream, options: ServedStreamOptions, budget: ByteBudget) {
    this.#decoder = new ObjectFrameDecoder({
      frame: (frame) => this.#onFrame(frame),
      data: (requestId, piece) => this.#onData(requestId, piece),
    });
    this.#stream = receiveBytes(origin, (piece) => this.#guard(() => this.#decoder.push(piece)));
    this.#options = options;
    this.#writer = new ObjectWriter(this.#stream);
    this.#operations = new Operations(this.#writer, options, budget, (detail) =>
      this.#violate('limit', detail),
    );
    this.#stream.on('error', () => {
      // 'close' follows, and says all that matters here.
    });
  }

  async run(): Promise<ServedOutcome> {
    const stream = this.#stream;
    const helloTimer = setTimeout(() => {
      if (!this.#greeted) this.#violate('malformed', 'no HELLO');
    }, this.#options.helloTimeoutMs);
    const closed = new Promise<void>((resolve) => stream.once('close', () => resolve()));
    stream.once('end', () => void this.#finish());
    stream.resume();
    try {
      if (!stream.destroyed) await Promise.race([closed, this.#bug.promise]);
    } finally {
      clearTimeout(helloTimer);
      stream.destroy();
      this.#abandon();
    }
    await Promise.race([Promise.all(this.#idle), this.#bug.promise]);
    return this.#outcome();
  }

  async refuse(detail: string): Promise<ServedOutcome> {
    this.#violate('limit', detail);
    return this.#outcome();
  }

  drain(): void {
    void this.#writer.send({ type: 'bye', reason: 'draining', detail: '' });
  }

  close(): void {
    this.#stream.destroy();
  }

  #outcome(): ServedOutcome {
    return { requestCount: this.#requestCount, violation: this.#violation };
  }

  /** The peer sends no more: what it asked for is still answered. */
  async #finish(): Promise<void> {
    if (!this.#decoder.isBetweenFrames) this.#violate('malformed', 'the stream ends inside a frame');
    for (const { body } of this.#requests.values()) {
      body?.complete.reject(unavailable('the stream ended before the body'));
    }
    await Promise.all(this.#idle);
    this.#stream.end();
  }

  /** The stream is closed. A PUT whose body is whole goes on: once it is done the guest finds it. */
  #abandon(): void {
    for (const { controller, body } of this.#requests.values()) {
      if (body !== undefined && body.filledBytes === body.bytes.length) continue;
      controller.abort(unavailable('the stream is closed'));
      body?.complete.reject(unavailable('the stream is closed'));
    }
  }

  #guard(work: () => void): void {
    if (this.#violation !== undefined) return;
    try {
      work();
    } catch (error) {
      if (!(error instanceof PosternError)) throw error;
      this.#violate('malformed', error.message);
    }
  }

  #violate(reason: ByeReason, detail: string): void {
    this.#violation ??= detail;
    void this.#writer.send({ type: 'bye', reason, detail }).then(() => this.#stream.end());
    setTimeout(() => this.#stream.destroy(), BYE_LINGER_MS).unref();
    this.#stream.resume();
  }

  #onFrame(frame: ObjectFrame): void {
    if (this.#violation !== undefined) return;
    if (!this.#greeted) {
      this.#onHello(frame);
      return;
    }
    if (frame.type === 'request') this.#onRequest(frame.requestId, frame.request);
    else if (frame.type === 'cancel') this.#onCancel(frame.requestId);
    else if (frame.type === 'bye') this.#stream.end();
    else this.#violate('malformed', `${frame.type} from a client`);
  }

  #onHello(frame: ObjectFrame): void {
    if (frame.type !== 'hello') {
      this.#violate('malformed', `${frame.type} before HELLO`);
      return;
    }
    const version = Math.min(frame.maxVersion, OBJECT_VERSION_MAX);
    if (version < frame.minVersion || version < OBJECT_VERSION_MIN) {
      this.#violate('version', `this side speaks ${OBJECT_VERSION_MIN} to ${OBJECT_VERSION_MAX}`);
      return;
    }
    this.#greeted = true;
    void this.#writer.send({ type: 'welcome', version, maxRequests: this.#options.maxRequests });
  }

  #onRequest(requestId: number, request: ObjectRequest): void {
    if (requestId <= this.#lastRequestId) {
      this.#violate('malformed', `request id ${requestId} again`);
      return;
    }
    this.#lastRequestId = requestId;
    if (this.#requests.size >= this.#options.maxRequests) {
      this.#violate('limit', `over ${this.#options.maxRequests} requests`);
      return;
    }
    this.#requestCount += 1;
    const served: Served = { controller: new AbortController() };
    this.#requests.set(requestId, served);
    const inline = request.op === 'put' && request.sizeBytes <= INLINE_MAX_BYTES;
    if (inline) served.body = incomingBody(request.sizeBytes);
    const work = this.#serve(requestId, request, served).catch((error: unknown) => this.#bug.reject(error));
    this.#idle.add(work);
    void work.then(() => this.#idle.delete(work));
  }

  #onCancel(requestId: number): void {
    const served = this.#requests.get(requestId);
    served?.controller.abort(unavailable('cancelled by the guest'));
    served?.body?.complete.reject(new Cancelled());
    this.#writer.dropBody(requestId);
  }

  #onData(requestId: number, piece: Buffer): void {
    if (this.#violation !== undefined) return;
    const body = this.#requests.get(requestId)?.body;
    if (body !== undefined && fillBody(body, piece)) return;
    this.#violate('malformed', `DATA that request ${requestId} has no place for`);
  }

  async #serve(requestId: number, request: ObjectRequest, served: Served): Promise<void> {
    try {
      await this.#operations.answer(requestId, request, served);
    } finally {
      this.#requests.delete(requestId);
    }
  }
}
