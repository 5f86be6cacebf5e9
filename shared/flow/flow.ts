import type { Socket } from 'node:net';
import type { Stream } from '../transport/transport.ts';

export type FlowEnd = 'closed' | 'reset-local' | 'reset-peer' | 'lost';

export interface FlowOutcome {
  readonly end: FlowEnd;
  /** Payload bytes that went from the local socket into the tunnel. */
  readonly sentBytes: number;
  /** Payload bytes that went from the tunnel to the local socket. */
  readonly receivedBytes: number;
}

export interface FlowOptions {
  /** Tells the peer, by a RESET frame, that the local socket was reset; the peer then closes the tunnel stream. */
  sendReset(): void;
  /** Called once, when both sockets are closed. */
  onDone(outcome: FlowOutcome): void;
}

/** A flow in progress: a local TCP socket spliced with a stream of the tunnel. */
export interface Flow {
  /** The peer said RESET (`reset-peer`) or the session is gone (`lost`): the local socket is reset. */
  abort(end: 'reset-peer' | 'lost'): void;
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

/** Splices the two, taking both over: the caller touches neither afterwards. Bytes already read are kept. */
export type StartFlow = (local: Socket, tunnel: Stream, options: FlowOptions) => Flow;
