import type { Socket } from 'node:net';
import { isPosternError, type PosternError } from '../../shared/errors.ts';
import { allocateBody, recycleBody } from '../../shared/objects/bodies.ts';
import { answer, type Reply, refuse } from './answer.ts';
import type { Account, PayloadBudget } from './budget.ts';
import { COMMAND, REQUEST_BYTES } from './constants.ts';
import type { Agreement } from './export.ts';
import { refusalOfFailure } from './failure.ts';
import type { Intake } from './intake.ts';
import { DIRECT_READ_MIN_BYTES, type NbdLimits } from './limits.ts';
import { Outbox } from './outbox.ts';
import { Pause } from './pause.ts';
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
  /** Decoded, but there are too many requests, or it is legal and too large for the moment: nothing is read until it fits. */
  | {
      readonly kind: 'waiting';
      readonly request: Request;
      readonly until: 'fewer requests' | 'bytes granted';
    }
  | Payload
  /** The payload of a WRITE that is refused. */
  | { readonly kind: 'skip'; readonly request: Request; readonly refusal: Refusal; left: number }
  /** `unfinished` is where the stream still reads to, if it reads. */
  | { readonly kind: 'ended'; readonly unfinished?: Payload };

interface Payload {
  readonly kind: 'payload';
  readonly request: Request;
  readonly target: Buffer;
  filled: number;
}

const REQUEST: State = { kind: 'request' };
const ENDED: State = { kind: 'ended' };
const NO_PAYLOAD = Buffer.alloc(0);

/**
 * The transmission phase of one connection: requests are begun as they arrive, run side by side and are answered as
 * they finish. While the next one does not fit into the server's budget the socket is paused, and the kernel holds the
 * peer back.
 */
export class Transmission {
  readonly #pause: Pause;
  readonly #intake: Intake;
  readonly #agreement: Agreement;
  readonly #limits: NbdLimits;
  readonly #budget: PayloadBudget;
  readonly #account: Account;
  readonly #events: TransmissionEvents;
  readonly #outbox: Outbox;
  #state: State = REQUEST;
  #requests = 0;
  #refusing: Refusal | undefined;

  constructor(
    socket: Socket,
    intake: Intake,
    agreement: Agreement,
    limits: NbdLimits,
    budget: PayloadBudget,
    events: TransmissionEvents,
  ) {
    this.#pause = new Pause(socket);
    this.#intake = intake;
    this.#agreement = agreement;
    this.#limits = limits;
    this.#budget = budget;
    this.#account = budget.open(() => this.#granted());
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
    this.#stop();
    // What still comes is thrown away, so that the peer's end is seen behind it.
    this.#pause.end();
    if (this.#requests === 0) this.#events.idle();
  }

  /**
   * The stream is closed, or is in this turn of the event loop. Requests begun hold their bytes until the device is done with
   * them; everything else is given back.
   */
  abandon(): void {
    this.#stop();
    if (this.#state.kind !== 'ended' || this.#state.unfinished === undefined) return;
    const { target, request } = this.#state.unfinished;
    this.#state = ENDED;
    recycleBody(target);
    this.#budget.give(this.#account, heldBytes(request));
  }

  /** A request that waits, or whose payload never came whole, was not begun. */
  #stop(): void {
    const state = this.#state;
    if (state.kind === 'ended') return;
    if (state.kind === 'waiting') this.#budget.leave(this.#account);
    if (state.kind === 'payload' || state.kind === 'skip') this.#requests -= 1;
    this.#state = state.kind === 'payload' ? { kind: 'ended', unfinished: state } : ENDED;
  }

  /** What comes while the requests begun are being answered is refused; then it is the end. */
  windUp(refusal: Refusal): void {
    this.#refusing = refusal;
    if (this.#state.kind === 'waiting') {
      // Refused, it needs no bytes.
      this.#budget.leave(this.#account);
      this.#admit(this.#state.request);
      this.#continue();
    } else if (this.#requests === 0) this.end();
  }

  /** True when something was done and more may be. */
  #advance(): boolean {
    const state = this.#state;
    switch (state.kind) {
      case 'request':
        return this.#readRequest();
      case 'waiting':
        return state.until === 'fewer requests' && this.#admit(state.request);
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
      this.#state = ENDED;
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
    if (this.#requests >= this.#limits.inflightRequests) return this.#wait(request, 'fewer requests');
    const refusal = this.#refusing ?? refusalOf(request, this.#agreement);
    const bytes = refusal === undefined ? heldBytes(request) : 0;
    if (!this.#budget.take(this.#account, bytes)) return this.#wait(request, 'bytes granted');
    this.#enter(request, refusal);
    return true;
  }

  #wait(request: Request, until: 'fewer requests' | 'bytes granted'): false {
    this.#state = { kind: 'waiting', request, until };
    this.#pause.begin();
    return false;
  }

  #granted(): void {
    const state = this.#state;
    if (state.kind !== 'waiting') throw new Error(`bytes granted in state ${state.kind}`);
    this.#enter(state.request, undefined);
    this.#continue();
  }

  /** After a wait. */
  #continue(): void {
    this.pump();
    if (this.#state.kind !== 'waiting') this.#pause.end();
  }

  /** The request's bytes are held. */
  #enter(request: Request, refusal: Refusal | undefined): void {
    this.#state = REQUEST;
    this.#requests += 1;
    if (refusal !== undefined) {
      const left = request.type === COMMAND.WRITE ? request.length : 0;
      this.#state = { kind: 'skip', request, refusal, left };
    } else if (request.type === COMMAND.WRITE) this.#receive(request);
    else this.#begin(request, NO_PAYLOAD);
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
    this.#budget.give(this.#account, bytes);
    if (this.#state.kind === 'waiting' && this.#state.until === 'fewer requests') this.#continue();
    if (this.#requests > 0) return;
    if (this.#state.kind === 'ended') this.#events.idle();
    else if (this.#refusing !== undefined) this.end();
  }
}
