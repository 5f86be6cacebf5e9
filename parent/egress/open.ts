import type { Socket } from 'node:net';
import { PosternError } from '../../shared/errors.ts';
import type { FlowOutcome, StartFlow } from '../../shared/flow/flow.ts';
import type { Logger } from '../../shared/log.ts';
import { decodeTcpOpen, type TcpOpen } from '../../shared/wire/open.ts';
import { encodeReply, type ReplyStatus } from '../../shared/wire/reply.ts';
import type { Audit } from '../audit.ts';
import { closeWith, type OpenedStream } from '../gate/gate.ts';
import type { Guest } from '../guest/guest.ts';
import type { Session } from '../session/session.ts';
import { type DialOutcome, dial } from './dial.ts';
import type { Candidate } from './order.ts';
import { watchGone } from './watch.ts';

/** What became of an OPEN; `cancelled` when the guest gave it up first. */
export type OpenOutcome = ReplyStatus | 'cancelled';

export interface EgressObserver {
  onEgressOpen(guest: Guest, outcome: OpenOutcome): void;
  /** Of a dial that was made, whatever came of it. */
  onDialed(guest: Guest, seconds: number): void;
  onFlowDone(guest: Guest, outcome: FlowOutcome): void;
}

export interface EgressOptions {
  readonly startFlow: StartFlow;
  readonly audit: Audit;
  readonly log: Logger;
  readonly observer: EgressObserver;
  /** True while the parent drains: it takes no new flows. */
  draining(): boolean;
}

/** Serves one proven OPEN: quota, guard, dial, answer, splice. Owns the stream. @throws PosternError ERR_WIRE_MALFORMED */
export async function openEgress(
  opened: OpenedStream,
  session: Session,
  options: EgressOptions,
): Promise<void> {
  return new Opening(opened, session, options).run();
}

/** One OPEN on its way to being a flow. Until it is one, an abort of the flow cancels the dial. */
class Opening {
  readonly #opened: OpenedStream;
  readonly #open: TcpOpen;
  readonly #session: Session;
  readonly #options: EgressOptions;
  readonly #cancel = new AbortController();

  /** @throws PosternError ERR_WIRE_MALFORMED */
  constructor(opened: OpenedStream, session: Session, options: EgressOptions) {
    this.#opened = opened;
    this.#open = decodeTcpOpen(opened.body);
    this.#session = session;
    this.#options = options;
  }

  async run(): Promise<void> {
    const { guest, flowId } = this.#opened;
    if (!this.#session.add(flowId, { abort: () => this.#cancel.abort() })) {
      throw new PosternError('ERR_WIRE_MALFORMED', `flow id ${flowId} is in use`);
    }
    const quota = this.#options.draining() ? 'draining' : guest.usage.beginEgress();
    if (quota !== undefined) {
      this.#options.audit.say(guest.name, `quota ${quota}`, 'flow over a quota', {
        event: 'flow.limited',
        quota,
      });
      return this.#refuse('limit');
    }
    const outcome = await this.#dial(this.#permitted(), this.#open.port);
    guest.usage.dials -= 1;
    this.#settle(outcome);
  }

  /** The addresses that the guard lets the guest reach; the others are written down. */
  #permitted(): Candidate[] {
    const { guest } = this.#opened;
    const { addresses, port } = this.#open;
    return addresses.flatMap((address, index) => {
      const decision = guest.guard.decide('tcp', address, port);
      if (decision.verdict === 'allow') return [{ address: decision.address ?? address, index }];
      const { reason, rule, special } = decision;
      const details = { event: 'flow.refused', address, port, protocol: 'tcp', reason, rule, special };
      this.#options.audit.say(guest.name, `guard ${address} ${port}`, 'destination refused', details);
      return [];
    });
  }

  async #dial(
    candidates: readonly Candidate[],
    port: number,
  ): Promise<DialOutcome | { readonly kind: 'denied' }> {
    if (candidates.length === 0) return { kind: 'denied' };
    const { guest, stream } = this.#opened;
    const startedAt = performance.now();
    const unwatch = watchGone(stream, () => this.#cancel.abort());
    const outcome = await dial(candidates, port, this.#cancel.signal);
    unwatch();
    this.#options.observer.onDialed(guest, (performance.now() - startedAt) / 1000);
    if (outcome.kind === 'failed') {
      const addresses = candidates.map(({ address }) => address);
      this.#options.log.debug(
        { event: 'flow.failed', guest: guest.name, addresses, port, failure: outcome.failure },
        'dial failed',
      );
    }
    return outcome;
  }

  #settle(outcome: DialOutcome | { readonly kind: 'denied' }): void {
    const connected = outcome.kind === 'connected' ? outcome : undefined;
    if (connected !== undefined && !this.#opened.stream.destroyed) {
      this.#splice(connected.socket, connected.addressIndex);
      return;
    }
    connected?.socket.destroy();
    this.#opened.guest.usage.flows -= 1;
    if (outcome.kind === 'denied') this.#refuse('denied');
    else if (outcome.kind === 'failed') this.#refuse(outcome.failure);
    else this.#giveUp();
  }

  #giveUp(): void {
    const { guest, stream, flowId } = this.#opened;
    this.#session.remove(flowId);
    this.#options.observer.onEgressOpen(guest, 'cancelled');
    stream.destroy();
  }

  #refuse(status: ReplyStatus): void {
    const { guest, stream, flowId } = this.#opened;
    this.#session.remove(flowId);
    this.#options.observer.onEgressOpen(guest, status);
    closeWith(stream, status);
  }

  #splice(socket: Socket, addressIndex: number): void {
    const { guest, stream, flowId } = this.#opened;
    const { observer, log, startFlow } = this.#options;
    const { limiter } = guest.usage;
    const about = {
      event: 'flow.opened',
      guest: guest.name,
      flowId,
      // Not asked of the socket: that is a system call, and the answer is known.
      destination: `${this.#open.addresses[addressIndex]} ${this.#open.port}`,
    };
    stream.write(encodeReply('ok', addressIndex));
    observer.onEgressOpen(guest, 'ok');
    log.debug(about, 'flow opened');
    const flow = startFlow(socket, stream, {
      ...(limiter === undefined ? {} : { limiter }),
      sendReset: () => this.#session.sendReset(flowId),
      onDone: (outcome) => {
        this.#session.remove(flowId);
        guest.flows.delete(flow);
        guest.usage.flows -= 1;
        observer.onFlowDone(guest, outcome);
        log.debug({ ...about, event: 'flow.closed', ...outcome }, 'flow closed');
      },
    });
    guest.flows.add(flow);
    this.#session.replace(flowId, flow);
  }
}
