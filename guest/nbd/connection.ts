import type { Socket } from 'node:net';
import type { PosternError } from '../../shared/errors.ts';
import type { PayloadBudget } from './budget.ts';
import type { Agreement, ExportTable, NbdExport } from './export.ts';
import { Handshake } from './handshake.ts';
import { Intake } from './intake.ts';
import { HANDSHAKE_TIMEOUT_MS, type NbdLimits } from './limits.ts';
import { receiveInto } from './receiver.ts';
import type { Request } from './request.ts';
import { Transmission } from './transmission.ts';

/** What a connection tells its server. */
export interface ConnectionEvents {
  closed(connection: Connection): void;
  /** The peer was cut off for what it said; `text` names it. */
  violation(connection: Connection, text: string): void;
  failed(connection: Connection, request: Request, failure: PosternError): void;
}

type Phase =
  | { readonly kind: 'handshake'; readonly handshake: Handshake; readonly timer: NodeJS.Timeout }
  | { readonly kind: 'transmission'; readonly agreement: Agreement; readonly transmission: Transmission }
  | { readonly kind: 'over' };

/** One client's stream, from the greeting to its close. It owns the socket. */
export class Connection {
  readonly #socket: Socket;
  readonly #limits: NbdLimits;
  readonly #budget: PayloadBudget;
  readonly #events: ConnectionEvents;
  readonly #intake = new Intake();
  readonly #closedResolvers = Promise.withResolvers<void>();
  #phase: Phase = { kind: 'over' };

  /** Takes the stream over: it is not to be used any more. */
  constructor(stream: Socket, limits: NbdLimits, budget: PayloadBudget, events: ConnectionEvents) {
    this.#socket = receiveInto(stream, {
      target: () => (this.#phase.kind === 'transmission' ? this.#phase.transmission.target() : undefined),
      landed: (count) => {
        if (this.#phase.kind === 'transmission') this.#phase.transmission.landed(count);
      },
      received: (chunk) => this.#received(chunk),
    });
    this.#limits = limits;
    this.#budget = budget;
    this.#events = events;
  }

  /** Greets, and serves the export that the client chooses. */
  negotiate(exports: ExportTable): void {
    const handshake = new Handshake(exports, (bytes) => this.#socket.write(bytes));
    const timer = setTimeout(
      () => this.#violate('no export chosen within the deadline'),
      HANDSHAKE_TIMEOUT_MS,
    );
    this.#phase = { kind: 'handshake', handshake, timer };
    this.#listen();
    handshake.greet();
  }

  /** Serves at once what both sides know already: the kernel has no handshake of its own. */
  transmit(agreement: Agreement): void {
    this.#enterTransmission(agreement);
    this.#listen();
  }

  /** Resolves when the stream is closed. */
  get closed(): Promise<void> {
    return this.#closedResolvers.promise;
  }

  get export(): NbdExport | undefined {
    return this.#phase.kind === 'transmission' ? this.#phase.agreement.export : undefined;
  }

  /** Requests begun are answered, then the stream is closed. New ones are refused with ESHUTDOWN. */
  shutDown(): void {
    if (this.#phase.kind !== 'transmission') this.destroy();
    else this.#phase.transmission.windUp({ error: 'ESHUTDOWN', text: 'the export is being closed' });
  }

  destroy(): void {
    this.#leave();
    this.#socket.destroy();
  }

  #listen(): void {
    this.#socket.on('end', () => this.#ended());
    // 'close' follows and does what is to be done; a reset by the peer is its way to leave.
    this.#socket.on('error', () => {});
    this.#socket.on('close', () => this.#closed());
    this.#socket.resume();
  }

  #received(chunk: Buffer): 'nothing' | 'rest' | 'views' {
    this.#intake.push(chunk);
    if (this.#phase.kind === 'handshake') this.#negotiateOn(this.#phase.handshake);
    else if (this.#phase.kind === 'transmission') this.#phase.transmission.pump();
    else this.#intake.skip(this.#intake.bufferedBytes);
    return this.#intake.referred();
  }

  #negotiateOn(handshake: Handshake): void {
    const end = handshake.step(this.#intake);
    if (end === undefined) return;
    if (end.kind === 'agreed') {
      this.#enterTransmission(end.agreement);
      if (this.#phase.kind === 'transmission') this.#phase.transmission.pump();
    } else if (end.violation === undefined) {
      this.#leave();
      this.#socket.destroySoon();
    } else this.#violate(end.violation);
  }

  #enterTransmission(agreement: Agreement): void {
    this.#leave();
    const limits = this.#limits;
    const transmission = new Transmission(this.#socket, this.#intake, agreement, limits, this.#budget, {
      idle: () => this.#socket.destroySoon(),
      violation: (text) => this.#violate(text),
      failed: (request, failure) => this.#events.failed(this, request, failure),
    });
    this.#phase = { kind: 'transmission', agreement, transmission };
  }

  #ended(): void {
    if (this.#phase.kind === 'transmission') this.#phase.transmission.end();
    else this.#socket.destroySoon();
  }

  #violate(text: string): void {
    this.#events.violation(this, text);
    this.#leave();
    this.#socket.destroy();
  }

  #closed(): void {
    this.#leave();
    this.#events.closed(this);
    this.#closedResolvers.resolve();
  }

  #leave(): void {
    if (this.#phase.kind === 'handshake') clearTimeout(this.#phase.timer);
    if (this.#phase.kind === 'transmission') this.#phase.transmission.abandon();
    this.#phase = { kind: 'over' };
  }
}
