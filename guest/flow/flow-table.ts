import { PosternError } from '../../shared/errors.ts';
import type { DnssecState } from '../../shared/policy/types.ts';

/**
 * Flows of the guest that live or are being opened. A flow costs some 20 KiB here; 16,384 of them are what
 * architecture.md asks of a large guest with room to spare.
 */
export const FLOWS_MAX = 16_384;

export type FlowVia = 'socks5' | 'http-connect' | 'http' | 'names' | 'resolver' | 'inbound';

/** What a person wants to know of a flow; goes to the log and to `postern guest status`. */
export interface FlowLabels {
  readonly via: FlowVia;
  readonly protocol: 'tcp' | 'udp';
  /** Of an association with more than one remote: the port that the application sends to it. */
  readonly port: number;
  /** The name asked for, normalised; absent for an address. */
  readonly name?: string;
  readonly address?: string;
  /** How the answer for the name validated. */
  readonly dnssec?: DnssecState;
  /** The rule that allowed it. */
  readonly rule?: string;
  /** Who came in, for inbound flows. */
  readonly client?: string;
}

export interface LiveFlow {
  readonly flowId: number;
  readonly labels: FlowLabels;
  readonly startedAt: Date;
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** Ends it at the application with a reset: the peer's side was reset, or the session is gone. */
  abort(end: 'reset-peer' | 'lost'): void;
}

/** Every live flow of the session, by its id. */
export class FlowTable {
  readonly #flows = new Map<number, LiveFlow>();
  readonly #maxCount: number;
  #nextId = 2;
  #emptied: (() => void) | undefined;

  constructor(maxCount = FLOWS_MAX) {
    this.#maxCount = maxCount;
  }

  get count(): number {
    return this.#flows.size;
  }

  values(): IterableIterator<LiveFlow> {
    return this.#flows.values();
  }

  has(flowId: number): boolean {
    return this.#flows.has(flowId);
  }

  /** Even: opened by the guest. Never used twice while the agent runs. */
  takeId(): number {
    const flowId = this.#nextId;
    this.#nextId += 2;
    return flowId;
  }

  /** @throws PosternError ERR_FLOW_LIMIT */
  add(flow: LiveFlow): void {
    if (this.#flows.size >= this.#maxCount) {
      throw new PosternError('ERR_FLOW_LIMIT', `this guest has ${this.#maxCount} flows open`);
    }
    this.#flows.set(flow.flowId, flow);
  }

  remove(flow: LiveFlow): void {
    if (this.#flows.get(flow.flowId) !== flow) return;
    this.#flows.delete(flow.flowId);
    if (this.#flows.size === 0) this.#emptied?.();
  }

  /** The peer's side of the flow was reset. A flow that is not here has ended already. */
  reset(flowId: number): void {
    this.#flows.get(flowId)?.abort('reset-peer');
  }

  /** The session is gone, and with it the other end of every flow. */
  abortAll(): void {
    for (const flow of [...this.#flows.values()]) flow.abort('lost');
  }

  /** Resolves when no flow is left, or after `timeoutMs` with the number that is. */
  async drained(timeoutMs: number): Promise<number> {
    if (this.#flows.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, timeoutMs);
        this.#emptied = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.#flows.size;
  }
}
