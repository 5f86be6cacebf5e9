import type { Socket } from 'node:net';
import { PosternError } from '../../shared/errors.ts';
import type { Flow, FlowEnd } from '../../shared/flow/flow.ts';
import { resetSocket, startFlow } from '../../shared/flow/splice.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import type { LiveSession } from '../session/client.ts';
import type { FlowLabels, FlowTable, LiveFlow } from './flow-table.ts';

export interface TunnelOptions {
  readonly flowId: number;
  readonly labels: FlowLabels;
  readonly stream: Stream;
  readonly session: LiveSession;
  readonly table: FlowTable;
  /** Called once, when the flow is over. */
  onDone(tunnel: Tunnel, end: FlowEnd): void;
}

/** One stream of the tunnel, from the moment it is connected to its end. It is in the table for that long. */
export class Tunnel implements LiveFlow {
  readonly flowId: number;
  readonly stream: Stream;
  readonly startedAt = new Date();
  #labels: FlowLabels;
  readonly #options: TunnelOptions;
  #flow: Flow | undefined;
  #end: FlowEnd | undefined;
  #done = false;

  /** @throws PosternError ERR_FLOW_LIMIT; the stream is closed then. */
  constructor(options: TunnelOptions) {
    this.#options = options;
    this.flowId = options.flowId;
    this.stream = options.stream;
    this.#labels = options.labels;
    try {
      options.table.add(this);
    } catch (error) {
      this.stream.destroy();
      throw error;
    }
    // Whoever waits on the stream hears of the error; without a listener it would end the process.
    this.stream.on('error', () => {
      this.#end ??= 'lost';
    });
    this.stream.on('close', () => {
      if (this.#flow === undefined) this.#finish(this.#end ?? 'closed');
    });
    if (!options.session.live) this.abort('lost');
  }

  get labels(): FlowLabels {
    return this.#labels;
  }

  /** Which of the addresses answered. */
  set address(address: string) {
    this.#labels = { ...this.#labels, address };
  }

  get sentBytes(): number {
    return this.#flow?.sentBytes ?? this.stream.bytesWritten;
  }

  get receivedBytes(): number {
    return this.#flow?.receivedBytes ?? this.stream.bytesRead;
  }

  /** Joins the tunnel with the application's socket and lets go of both. */
  splice(local: Socket): void {
    if (local.destroyed) {
      this.cancel();
      return;
    }
    if (this.#end !== undefined || this.stream.destroyed) {
      // It was aborted between the answer and now.
      resetSocket(local);
      return;
    }
    this.#flow = startFlow(local, this.stream, {
      sendReset: () => this.#sendReset(),
      onDone: ({ end }) => this.#finish(end),
    });
  }

  abort(end: 'reset-peer' | 'lost'): void {
    if (this.#done) return;
    this.#end ??= end;
    if (this.#flow !== undefined) this.#flow.abort(end);
    else this.stream.destroy(abortError(end));
  }

  /** This side gives up, without a splice: the far end sees a reset, not a proper end. */
  cancel(): void {
    if (this.#done || this.#flow !== undefined) return;
    this.#end ??= 'reset-local';
    this.#sendReset();
    this.stream.destroy();
  }

  #sendReset(): void {
    this.#options.session.send({ type: 'reset', flowId: this.flowId });
  }

  #finish(end: FlowEnd): void {
    if (this.#done) return;
    this.#done = true;
    this.#options.table.remove(this);
    this.#options.onDone(this, end);
  }
}

function abortError(end: 'reset-peer' | 'lost'): PosternError {
  return end === 'lost'
    ? new PosternError('ERR_SESSION_LOST', 'the session with the parent ended')
    : new PosternError('ERR_FLOW_REFUSED', 'the destination reset the connection');
}
