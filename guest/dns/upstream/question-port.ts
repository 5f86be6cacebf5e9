import { randomInt } from 'node:crypto';
import { PosternError } from '../../../shared/errors.ts';
import type { Endpoint } from '../../../shared/wire/endpoint.ts';
import type { Association, AssociationEvents } from '../../flow/association.ts';
import type { SocketAddress } from './address.ts';
import { answersQuery } from './query.ts';

/** A question that was not answered by then is sent once more: datagrams are lost, and another way is tried only later. */
export const RESEND_AFTER_MS = 500;
/** A port without an open question is given up: by then an answer that comes is nobody's. */
const IDLE_MS = 2_000;
/** A parent that does not answer within this carries no datagrams; TCP is asked meanwhile. */
const OPEN_TIMEOUT_MS = 5_000;
/** A parent that refused a port is not asked for another before this: its answer would be the same. */
const REFUSAL_KEPT_MS = 1_000;
/** Datagrams that answer no open question, after which the port is given up: somebody is guessing. */
export const STRAYS_MAX = 64;

/** Opens a port of the parent's for questions to one server. */
export type OpenPort = (
  server: SocketAddress,
  signal: AbortSignal,
  events: AssociationEvents,
) => Promise<Pick<Association, 'send' | 'close'>>;

interface Pending {
  /** With the id that it was sent with. */
  readonly query: Buffer;
  resolve(answer: Buffer): void;
  reject(error: Error): void;
}

/** One source port and the questions that were asked from it. */
export class QuestionPort {
  readonly #server: SocketAddress;
  readonly #onEnd: () => void;
  readonly #pending = new Map<number, Pending>();
  readonly #abort = new AbortController();
  readonly #since = performance.now();
  readonly #opening: Promise<Pick<Association, 'send' | 'close'>>;
  #association: Pick<Association, 'send' | 'close'> | undefined;
  #idle: NodeJS.Timeout | undefined;
  #askedCount = 0;
  #strayCount = 0;
  #retired = false;
  /** On the clock of `performance.now()`. */
  #refusedAt: number | undefined;
  #reason: Error | undefined;

  constructor(server: SocketAddress, open: OpenPort, onEnd: () => void) {
    this.#server = server;
    this.#onEnd = onEnd;
    const timer = setTimeout(() => this.#abort.abort(), OPEN_TIMEOUT_MS);
    this.#opening = open(server, this.#abort.signal, {
      onDatagram: (remote, payload) => this.#take(remote, payload),
      onUndelivered: (remote, status) => {
        if (this.#isServer(remote)) this.#end(new Error(`the parent did not send it: ${status}`));
      },
      onClosed: (reason) => this.#end(reason),
    });
    this.#opening.then(
      (association) => {
        clearTimeout(timer);
        this.#association = association;
        if (this.#reason !== undefined) association.close();
        else for (const { query } of this.#pending.values()) association.send(this.#server, query);
      },
      (error: unknown) => {
        clearTimeout(timer);
        this.#refuse(error instanceof Error ? error : new Error(String(error)));
      },
    );
  }

  /** Whether another question may be asked from here; of a port that was refused, to hear that at once. */
  takes(maxCount: number, maxAgeMs: number): boolean {
    if (this.#refusedAt !== undefined) return performance.now() - this.#refusedAt < REFUSAL_KEPT_MS;
    const ageMs = performance.now() - this.#since;
    const isFresh = ageMs < maxAgeMs && this.#askedCount < maxCount && this.#strayCount === 0;
    return isFresh && this.#reason === undefined;
  }

  /** No question comes any more; it ends with the last answer. */
  retire(): void {
    this.#retired = true;
    this.#rest();
  }

  close(): void {
    this.#end(new PosternError('ERR_TRANSPORT_ABORTED', 'the agent stops'));
  }

  /** The answer, with the id of `query`. Rejects when the signal aborts, and with what ended the port. */
  ask(query: Buffer, signal: AbortSignal): Promise<Buffer> {
    this.#askedCount += 1;
    let id = query.readUInt16BE(0);
    while (this.#pending.has(id)) id = randomInt(0x10000);
    const sent = Buffer.from(query);
    sent.writeUInt16BE(id, 0);
    return new Promise<Buffer>((resolve, reject) => {
      if (signal.aborted || this.#reason !== undefined) {
        reject(this.#reason ?? new Error('aborted'));
        return;
      }
      const send = (): void => void this.#association?.send(this.#server, sent);
      const resend = setTimeout(send, RESEND_AFTER_MS);
      const settle = (finish: () => void): void => {
        clearTimeout(resend);
        signal.removeEventListener('abort', onAbort);
        this.#pending.delete(id);
        finish();
        this.#rest();
      };
      const onAbort = (): void => settle(() => reject(new Error('aborted')));
      signal.addEventListener('abort', onAbort, { once: true });
      this.#pending.set(id, {
        query: sent,
        resolve: (answer) => {
          query.copy(answer, 0, 0, 2);
          settle(() => resolve(answer));
        },
        reject: (error) => settle(() => reject(error)),
      });
      clearTimeout(this.#idle);
      send();
    });
  }

  #isServer({ address, port }: Endpoint): boolean {
    return port === this.#server.port && address === this.#server.address;
  }

  #take(remote: Endpoint, payload: Buffer): void {
    const known = payload.length < 2 ? undefined : this.#pending.get(payload.readUInt16BE(0));
    if (known !== undefined && this.#isServer(remote) && answersQuery(payload, known.query)) {
      // Its own octets: what it stands in may hold others' answers.
      known.resolve(Buffer.from(payload));
      return;
    }
    this.#strayCount += 1;
    if (this.#strayCount > STRAYS_MAX) this.#end(new Error('too many datagrams that are no answer'));
  }

  /** Without a question there is nothing to keep it for. */
  #rest(): void {
    if (this.#pending.size > 0 || this.#reason !== undefined) return;
    clearTimeout(this.#idle);
    if (this.#retired) this.#end(new Error('the port was given up'));
    else this.#idle = setTimeout(() => this.#end(new Error('the port was idle')), IDLE_MS);
  }

  #refuse(reason: Error): void {
    if (this.#reason !== undefined) return;
    this.#refusedAt = performance.now();
    this.#end(reason);
  }

  #end(reason: Error): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    clearTimeout(this.#idle);
    this.#abort.abort();
    this.#association?.close();
    this.#onEnd();
    for (const { reject } of [...this.#pending.values()]) reject(reason);
  }
}
