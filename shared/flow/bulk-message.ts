import type { Peer } from '../transport/address.ts';
import type { FlowEnd } from './flow.ts';

/** What a thread needs to run a flow. The descriptors stay the lender's, who keeps them open until the flow is back. */
export interface Lent {
  readonly localFd: number;
  readonly tunnelFd: number;
  /** Decides how long a single write to the tunnel may be. */
  readonly peer: Peer;
  /** Payload bytes sent and received so far. The thread gets them in shared memory and counts on. */
  readonly counts: Float64Array;
}

/** How `Flow.abort` ends a flow. */
export type Abort = 'reset-peer' | 'lost';

export type ToThread =
  | ({ readonly type: 'lend'; readonly id: number } & Lent)
  | { readonly type: 'abort'; readonly id: number; readonly end: Abort };

/**
 * `ready`: the thread takes flows. `reset`: the flow's `sendReset`. `done`: the flow is over and the thread's duplicates
 * are closed. `returned`: the thread could not take the flow and has not touched it.
 */
export type FromThread =
  | { readonly type: 'ready' }
  | { readonly type: 'reset'; readonly id: number }
  | { readonly type: 'done'; readonly id: number; readonly end: FlowEnd }
  | { readonly type: 'returned'; readonly id: number };
