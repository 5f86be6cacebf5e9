import { isPosternError, PosternError } from '../../shared/errors.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { decodeStreamHeader, HEADER_BYTES, proofHolds, type StreamKind } from '../../shared/wire/header.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { encodeReply, type ReplyStatus, statusOfError } from '../../shared/wire/reply.ts';
import type { Audit, StreamRefusal } from '../audit.ts';
import type { Guest } from '../guest/guest.ts';
import type { Session } from '../session/session.ts';

/** An agent sends its header and body at once; what takes longer is not an agent. */
export const HEADER_TIMEOUT_MS = 5_000;
/**
 * Streams of one guest whose proof is not there yet. As many as a listen backlog, so that an honest burst which is
 * accepted in one turn fits; at some 4 KiB each. When one more comes the longest waiting is turned away: silent streams cannot lock out
 * those that speak.
 */
export const UNPROVEN_MAX = 4096;

/** A stream whose header was read, of a guest that the kernel named; for all kinds but control it is proven. */
export interface OpenedStream {
  readonly guest: Guest;
  readonly stream: Stream;
  readonly flowId: number;
  readonly body: Buffer;
}

export interface GateOptions {
  readonly audit: Audit;
  onRefused(guest: string, reason: StreamRefusal): void;
  /** Takes over a control stream; header and proof are the registration's to check against its own key. */
  readonly onControl: (opened: OpenedStream, header: Buffer) => Promise<void>;
  /** What proven streams become; kinds without an entry are refused. Each takes its stream over. */
  readonly onProven: Partial<Record<StreamKind, (opened: OpenedStream, session: Session) => Promise<void>>>;
}

/** Reads the first bytes of every stream that a guest opens and turns away whatever does not prove itself. */
export class Gate {
  readonly #options: GateOptions;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /** Owns the stream from now on; never throws for what a peer does. */
  async admit(guest: Guest, stream: Stream): Promise<void> {
    // The reader and the splice hear of errors by themselves; between them an error means only that it is closed.
    stream.on('error', () => {});
    this.#makeRoom(guest);
    guest.unproven.add(stream);
    try {
      await this.#open(guest, stream);
    } catch (error) {
      if (!isPosternError(error)) throw error;
      // One that was turned away to make room has had its answer.
      if (!stream.writableEnded) this.refuse(guest.name, stream, error);
    } finally {
      guest.unproven.delete(stream);
    }
  }

  /**
   * Answers with the error's status, closes, and writes it down.
   * @param who tells refusals apart that are said once a window; the guest's name does by itself when it has one
   */
  refuse(guestName: string, stream: Stream, error: PosternError, who = ''): void {
    const reason = REASONS[error.code] ?? 'malformed';
    this.#options.onRefused(guestName, reason);
    this.#options.audit.say(guestName, `${reason} ${who}`, 'stream refused', {
      event: 'stream.refused',
      reason,
      detail: error.message,
    });
    closeWith(stream, statusOfError(error.code) ?? STATUS_OF_REASON[reason] ?? 'malformed');
  }

  #makeRoom(guest: Guest): void {
    if (guest.unproven.size < UNPROVEN_MAX) return;
    const [oldest] = guest.unproven;
    if (oldest === undefined) return;
    guest.unproven.delete(oldest);
    this.refuse(
      guest.name,
      oldest,
      new PosternError('ERR_FLOW_LIMIT', `over ${UNPROVEN_MAX} unproven streams`),
    );
  }

  async #open(guest: Guest, stream: Stream): Promise<void> {
    const startedAt = performance.now();
    const header = await readExactly(stream, HEADER_BYTES, HEADER_TIMEOUT_MS);
    const { kind, flowId, bodyLength } = decodeStreamHeader(header);
    const leftMs = Math.max(1, HEADER_TIMEOUT_MS - (performance.now() - startedAt));
    const body = await readExactly(stream, bodyLength, leftMs);
    if (stream.destroyed) return;
    const opened = { guest, stream, flowId, body };
    if (kind === 'control') return this.#options.onControl(opened, header);
    const { session } = guest;
    if (session === undefined || !session.live) {
      throw new PosternError('ERR_SESSION_UNREGISTERED', `a ${kind} stream without a session`);
    }
    if (!proofHolds(session.key, header, body)) {
      throw new PosternError('ERR_SESSION_PROOF', `a ${kind} stream without the session's proof`);
    }
    guest.unproven.delete(stream);
    const take = this.#options.onProven[kind];
    if (take === undefined)
      throw new PosternError('ERR_WIRE_MALFORMED', `a ${kind} stream, which is not offered`);
    if (flowId % 2 !== 0) throw new PosternError('ERR_WIRE_MALFORMED', `odd flow id ${flowId} from a guest`);
    return take(opened, session);
  }
}

const REASONS: Partial<Record<PosternError['code'], StreamRefusal>> = {
  ERR_SESSION_UNKNOWN_GUEST: 'unknown-guest',
  ERR_SESSION_UNREGISTERED: 'unregistered',
  ERR_SESSION_PROOF: 'unproven',
  ERR_SESSION_TAKEN: 'taken',
  ERR_SESSION_STATE: 'state',
  ERR_WIRE_VERSION: 'version',
  ERR_WIRE_TIMEOUT: 'silent',
  ERR_FLOW_LIMIT: 'crowded',
};
const STATUS_OF_REASON: Partial<Record<StreamRefusal, ReplyStatus>> = { state: 'unregistered' };

/** Says why, then closes both ways; four bytes always fit into a socket's buffer, so nothing waits for the peer. */
export function closeWith(stream: Stream, status: ReplyStatus): void {
  if (stream.destroyed) return;
  if (stream.writable) stream.write(encodeReply(status));
  stream.destroySoon();
}
