import type { Socket } from 'node:net';
import type { Stream } from '../transport/transport.ts';

/**
 * How a flow ended. `closed`: both directions finished; `reset-local`: the local socket was reset and the peer was
 * told; `reset-peer`: the peer said RESET; `lost`: the tunnel or the session broke.
 */
export type FlowEnd = 'closed' | 'reset-local' | 'reset-peer' | 'lost';

export interface FlowOutcome {
  readonly end: FlowEnd;
  /** Payload bytes that went from the local socket into the tunnel. */
  readonly sentBytes: number;
  /** Payload bytes that went from the tunnel to the local socket. */
  readonly receivedBytes: number;
}

/** A budget of bytes shared by the flows of one guest. */
export interface ByteLimiter {
  /** Spends `bytes` and returns for how many ms the flow must stop reading; 0 to go on. */
  take(bytes: number): number;
}

export interface FlowOptions {
  /** Tells the peer, by a RESET frame, that the local socket was reset; the peer then closes the tunnel stream. */
  sendReset(): void;
  /** Called once, when both sockets are closed. */
  onDone(outcome: FlowOutcome): void;
  /** A flow under one stays in its thread, however much it carries. */
  readonly limiter?: ByteLimiter;
  /** Where the payload bytes are counted, sent and received, when another thread looks on. */
  readonly counts?: Float64Array;
}

/** A flow in progress: a local TCP socket spliced with a stream of the tunnel. */
export interface Flow {
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** The peer said RESET (`reset-peer`) or the session is gone (`lost`): the local socket is reset. */
  abort(end: 'reset-peer' | 'lost'): void;
}

/** Splices the two, taking both over: the caller touches neither afterwards. Bytes already read are kept. */
export type StartFlow = (local: Socket, tunnel: Stream, options: FlowOptions) => Flow;
