import { PosternError } from '../../shared/errors.ts';
import { ControlChannel } from '../../shared/session/channel.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { CAPABILITIES, type ControlFrame } from '../../shared/wire/control.ts';
import { TokenBucket } from '../guest/rate.ts';

/** Three of these without a sign of life end a session, so a guest that froze is noticed within half a minute. */
export const KEEP_ALIVE_MS = 10_000;
/**
 * RESETs for flows that are not there. A few are honest (the flow ended while the frame was under way, at most as
 * many as flows end at once); more cost time that other guests need.
 */
export const STRAY_RESETS_PER_SECOND = 4096;
/** What this parent speaks; whether a guest may use it is answered stream by stream, for it can change. */
const OFFERED = CAPABILITIES.tcp | CAPABILITIES.inbound | CAPABILITIES.objects | CAPABILITIES.udp;

/** A flow of a session, or what will become one. */
export interface Abortable {
  abort(end: 'reset-peer' | 'lost'): void;
}

export interface SessionEvents {
  /** The guest takes no more inbound flows. */
  onGoaway(deadlineMs: number): void;
  /** Called once; every flow has been aborted by then. */
  onLost(reason: PosternError): void;
}

/** A registered guest: its key, its control stream and the flows that live and die with it. */
export class Session {
  readonly key: Buffer;
  readonly #flows = new Map<number, Abortable>();
  readonly #channel: ControlChannel;
  readonly #strayResets = new TokenBucket(STRAY_RESETS_PER_SECOND);
  readonly #events: SessionEvents;
  /** Odd: those that the guest opens are even. */
  #nextFlowId = 1;
  #goneAway = false;

  /** Says WELCOME at once. */
  constructor(stream: Stream, key: Buffer, version: number, events: SessionEvents) {
    this.key = key;
    this.#events = events;
    this.#channel = new ControlChannel(stream, {
      keepAliveMs: KEEP_ALIVE_MS,
      onFrame: (frame) => this.#receive(frame),
      onLost: (reason) => this.#lose(reason),
    });
    this.#channel.send({ type: 'welcome', version, capabilities: OFFERED, keepAliveMs: KEEP_ALIVE_MS });
  }

  get live(): boolean {
    return this.#channel.live;
  }

  /** Whether the guest takes inbound flows. */
  get accepting(): boolean {
    return this.live && !this.#goneAway;
  }

  get flowCount(): number {
    return this.#flows.size;
  }

  /** False when the id is in use: a flow id is unique while its flow lives (header.md). */
  add(flowId: number, flow: Abortable): boolean {
    if (this.#flows.has(flowId)) return false;
    this.#flows.set(flowId, flow);
    return true;
  }

  /** The dial of the flow has become the flow itself. */
  replace(flowId: number, flow: Abortable): void {
    this.#flows.set(flowId, flow);
  }

  remove(flowId: number): void {
    this.#flows.delete(flowId);
  }

  takeFlowId(): number {
    const flowId = this.#nextFlowId;
    this.#nextFlowId += 2;
    return flowId;
  }

  sendReset(flowId: number): void {
    this.#channel.send({ type: 'reset', flowId });
  }

  sendGoaway(deadlineMs: number): void {
    this.#channel.send({ type: 'goaway', deadlineMs });
  }

  /** Ends the session and all of its flows. */
  end(why: string): void {
    this.#channel.close(why);
  }

  #receive(frame: ControlFrame): void {
    if (frame.type === 'reset') {
      const flow = this.#flows.get(frame.flowId);
      if (flow !== undefined) flow.abort('reset-peer');
      else if (!this.#strayResets.tryTake())
        throw malformed('a flood of RESETs for flows that are not there');
    } else if (frame.type === 'goaway') {
      this.#goneAway = true;
      this.#events.onGoaway(frame.deadlineMs);
    } else {
      throw malformed(`a ${frame.type} frame from a guest`);
    }
  }

  #lose(reason: PosternError): void {
    for (const flow of [...this.#flows.values()]) flow.abort('lost');
    this.#events.onLost(reason);
  }
}

function malformed(detail: string): PosternError {
  return new PosternError('ERR_WIRE_MALFORMED', detail);
}
