import type { Socket } from 'node:net';
import { isPosternError, type PosternError } from '../../shared/errors.ts';
import { allocateBody } from '../../shared/objects/bodies.ts';
import { answer, type Reply, refuse } from './answer.ts';
import { COMMAND, REQUEST_BYTES } from './constants.ts';
import type { Agreement } from './export.ts';
import { refusalOfFailure } from './failure.ts';
import type { Intake } from './intake.ts';
import { DIRECT_READ_MIN_BYTES, type NbdLimits } from './limits.ts';
import { Outbox } from './outbox.ts';
import { decodeRequest, heldBytes, type Refusal, type Request, refusalOf } from './request.ts';

/** What a transmission tells its connection. */
export interface TransmissionEvents {
  /** Every request that was begun is answered and its reply taken by the kernel, and no more are begun. */
  idle(): void;
  /** The peer does not speak the protocol any more. */
  violation(text: string): void;
  failed(request: Request, failure: PosternError): void;
}

type State =
  | { readonly kind: 'request' }
  /** Decoded and legal, but over the connection's budget: nothing is read until it fits. */
  | { readonly kind: 'waiting'; readonly request: Request }
  | { readonly kind: 'payload'; readonly request: Request; readonly target: Buffer; filled: number }
  /** The payload of a WRITE that is refused. */
  | { readonly kind: 'skip'; readonly request: Request; readonly refusal: Refusal; left: number }
  | { readonly kind: 'ended' };

const REQUEST: State = { kind: 'request' };
const NO_PAYLOAD = Buffer.alloc(0);

/**
 * The transmission phase of one connection: requests are begun as they arrive, run side by side and are answered as
 * they finish. While the connection's budget is used up the socket is paused, and the kernel holds the peer back.
 */
export class Transmission {
  readonly #socket: Socket;
  readonly #intake: Intake;
  readonly #agreement: Agreement;
  readonly #limits: NbdLimits;
  readonly #events: TransmissionEvents;
  readonly #outbox: Outbox;
  #state: State = REQUEST;
  #requests = 0;
  #heldBytes = 0;
  #refusing: Refusal | undefined;

  constructor(
    socket: Socket,
    intake: Intake,
    agreement: Agreement,
    limits: NbdLimits,
    events: TransmissionEvents,
  ) {
    this.#socket = socket;
    this.#intake = intake;
    this.#agreement = agreement;
    this.#limits = limits;
    this.#events = events;
    this.#outbox = new Outbox(socket, (replies, bytes) => this.#released(replies, bytes));
  }

  /** Begins what has arrived, as far as the budget goes. Call it after each chunk. */
  pump(): void {
    while (this.#advance());
  }

  /** Where the next bytes go, when they are the payload of a large write. */
  target(): Buffer | undefined {
    const state = this.#state;
    if (state.kind !== 'payload' || state.target.length - state.filled < DIRECT_READ_MIN_BYTES)
      return undefined;
    return state.target.subarray(state.filled);
  }

  /** `count` bytes came into what `target` gave. */
  landed(count: number): void {
    if (this.#state.kind === 'payload') this.#state.filled += count;
    this.pump();
  }

  /** No more requests are begun; `idle` follows when those begun are answered. */
  end(): void {
    this.#abandonPayload();
    this.#state = { kind: 'ended' };
    // What still comes is thrown away, so that the peer's end is seen behind it.
    this.#socket.resume();
    if (this.#requests === 0) this.#events.idle();
  }

  /** A request whose payload never came whole was not begun. */
  #abandonPayload(): void {
    const state = this.#state;
    if (state.kind !== 'payload' && state.kind !== 'skip') return;
    this.#requests -= 1;
    if (state.kind === 'payload') this.#heldBytes -= heldBytes(state.request);
  }

  /** What comes while the requests begun are being answered is refused; then it is the end. */
  windUp(refusal: Refusal): void {
    this.#refusing = refusal;
    if (this.#requests === 0) this.end();
  }

  /** True when something was done and more may be. */
  #advance(): boolean {
    const state = this.#state;
    switch (state.kind) {
      case 'request':
        return this.#readRequest();
      case 'waiting':
        return this.#admit(state.request);
      case 'payload':
        state.filled += this.#intake.takeInto(state.target, state.filled);
        if (state.filled < state.target.length) return false;
        this.#state = REQUEST;
        this.#begin(state.request, state.target);
        return true;
      case 'skip':
        state.left -= this.#intake.skip(state.left);
        if (state.left > 0) return false;
        this.#state = REQUEST;
        this.#refuse(state.request, state.refusal);
        return true;
      case 'ended':
        this.#intake.skip(this.#intake.bufferedBytes);
        return false;
    }
  }

  #readRequest(): boolean {
    const bytes = this.#intake.take(REQUEST_BYTES);
    if (bytes === undefined) return false;
    const request = decodeRequest(bytes);
    if (request === undefined) {
      this.#state = { kind: 'ended' };
      this.#events.violation('request without its magic');
      return false;
    }
    if (request.type === COMMAND.DISC) {
      this.end();
      return false;
    }
    return this.#admit(request);
  }

  #admit(request: Request): boolean {
    const refusal = this.#refusing ?? refusalOf(request, this.#agreement);
    const bytes = refusal === undefined ? heldBytes(request) : 0;
    if (!this.#fits(bytes)) {
      this.#state = { kind: 'waiting', request };
      this.#socket.pause();
      return false;
    }
    this.#state = REQUEST;
    this.#requests += 1;
    this.#heldBytes += bytes;
    if (refusal !== undefined) {
      const left = request.type === COMMAND.WRITE ? request.length : 0;
      this.#state = { kind: 'skip', request, refusal, left };
    } else if (request.type === COMMAND.WRITE) this.#receive(request);
    else this.#begin(request, NO_PAYLOAD);
    return true;
  }

  /** One request always fits when nothing else is in flight. */
  #fits(bytes: number): boolean {
    if (this.#requests === 0) return true;
    const { inflightRequests, inflightBytes } = this.#limits;
    return this.#requests < inflightRequests && (bytes === 0 || this.#heldBytes + bytes <= inflightBytes);
  }

  #receive(request: Request): void {
    const whole = this.#intake.takeForGood(request.length);
    if (whole !== undefined) this.#begin(request, whole);
    // The system gives the pages of a fresh one as they are filled: a length alone costs no memory.
    else this.#state = { kind: 'payload', request, target: allocateBody(request.length), filled: 0 };
  }

  #begin(request: Request, payload: Buffer): void {
    const bytes = heldBytes(request);
    answer(this.#agreement, request, payload).then(
      (reply) => this.#post(reply, bytes),
      (error: unknown) => {
        // Anything else is a mistake of ours, and must not look like a failing disk.
        if (!isPosternError(error)) throw error;
        this.#events.failed(request, error);
        this.#post(refuse(this.#agreement, request, refusalOfFailure(error)), bytes);
      },
    );
  }

  #refuse(request: Request, refusal: Refusal): void {
    this.#post(refuse(this.#agreement, request, refusal), 0);
  }

  #post(reply: Reply, bytes: number): void {
    this.#outbox.post(reply, bytes);
  }

  #released(replies: number, bytes: number): void {
    this.#requests -= replies;
    this.#heldBytes -= bytes;
    if (this.#state.kind === 'waiting') {
      this.pump();
      if (this.#state.kind !== 'waiting') this.#socket.resume();
    }
    if (this.#requests > 0) return;
    if (this.#state.kind === 'ended') this.#events.idle();
    else if (this.#refusing !== undefined) this.end();
  }
}
