import type { Socket } from 'node:net';
import type { FlowOutcome, StartFlow } from '../../shared/flow/flow.ts';
import { resetSocket } from '../../shared/flow/splice.ts';
import type { Logger } from '../../shared/log.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import type { Endpoint } from '../../shared/wire/endpoint.ts';
import { encodeStreamHeader } from '../../shared/wire/header.ts';
import { encodeInboundOpen } from '../../shared/wire/open.ts';
import type { ReplyStatus } from '../../shared/wire/reply.ts';
import type { Audit } from '../audit.ts';
import type { Guest } from '../guest/guest.ts';
import type { Session } from '../session/session.ts';
import { type Knock, knock } from './knock.ts';

/** What became of a client; the last three were never told to the guest, or not answered by it. */
export type InboundOutcome = ReplyStatus | 'no-session' | 'no-agent' | 'cancelled';

export interface InboundObserver {
  onInboundOpen(guest: Guest, outcome: InboundOutcome): void;
  onFlowDone(guest: Guest, outcome: FlowOutcome): void;
}

export interface InboundOptions {
  readonly startFlow: StartFlow;
  readonly audit: Audit;
  readonly log: Logger;
  readonly observer: InboundObserver;
}

/** Takes a client of a forward to its guest, or resets it. Owns the (paused) client; never throws for what peers do. */
export async function openInbound(
  guest: Guest,
  servicePort: number,
  client: Socket,
  options: InboundOptions,
): Promise<void> {
  // The splice hears of errors by itself; before it, an error means only that the client is gone.
  client.on('error', () => {});
  await new Arrival(guest, servicePort, client, options).run();
}

/** A client that waits for its guest. */
class Arrival {
  readonly #guest: Guest;
  readonly #servicePort: number;
  readonly #client: Socket;
  readonly #options: InboundOptions;
  readonly #ends: Ends | undefined;

  constructor(guest: Guest, servicePort: number, client: Socket, options: InboundOptions) {
    this.#guest = guest;
    this.#servicePort = servicePort;
    this.#client = client;
    this.#options = options;
    this.#ends = endsOf(client);
  }

  async run(): Promise<void> {
    const { session, usage, config } = this.#guest;
    if (this.#ends === undefined) return this.#turnAway('cancelled', 'the client is gone');
    if (session === undefined || !session.accepting)
      return this.#turnAway('no-session', 'the guest has no session');
    if (config.agent === undefined) return this.#turnAway('no-agent', 'the guest has no agent address');
    const quota = usage.beginInbound();
    if (quota !== undefined) return this.#turnAway('limit', `quota ${quota}`);
    const flowId = session.takeFlowId();
    const cancel = new AbortController();
    const onClose = (): void => cancel.abort();
    session.add(flowId, { abort: onClose });
    this.#client.once('close', onClose);
    const body = encodeInboundOpen({ servicePort: this.#servicePort, ...this.#ends });
    const header = encodeStreamHeader('inbound', flowId, body, session.key);
    const answer = await knock(config.agent, header, cancel.signal);
    this.#client.off('close', onClose);
    usage.inboundPending -= 1;
    if (answer.stream === undefined) this.#refused(answer, session, flowId);
    else this.#splice(answer.stream, session, flowId);
  }

  #refused(answer: Extract<Knock, { outcome: unknown }>, session: Session, flowId: number): void {
    session.remove(flowId);
    this.#guest.usage.inbound -= 1;
    this.#turnAway(answer.outcome, answer.reason);
  }

  #turnAway(outcome: InboundOutcome, reason: string): void {
    const { audit, observer } = this.#options;
    const guest = this.#guest;
    const servicePort = this.#servicePort;
    observer.onInboundOpen(guest, outcome);
    const details = { event: 'inbound.refused', servicePort, client: this.#ends?.client.address, reason };
    audit.say(guest.name, `inbound ${servicePort} ${reason}`, 'inbound client turned away', details);
    resetSocket(this.#client);
  }

  #splice(stream: Stream, session: Session, flowId: number): void {
    const guest = this.#guest;
    const { log, observer, startFlow } = this.#options;
    const { limiter } = guest.usage;
    const client = `${this.#ends?.client.address} ${this.#ends?.client.port}`;
    observer.onInboundOpen(guest, 'ok');
    log.info(
      { event: 'inbound.opened', guest: guest.name, flowId, servicePort: this.#servicePort, client },
      'inbound flow',
    );
    const flow = startFlow(this.#client, stream, {
      ...(limiter === undefined ? {} : { limiter }),
      sendReset: () => session.sendReset(flowId),
      onDone: (outcome) => {
        session.remove(flowId);
        guest.flows.delete(flow);
        guest.usage.inbound -= 1;
        observer.onFlowDone(guest, outcome);
      },
    });
    guest.flows.add(flow);
    session.replace(flowId, flow);
  }
}

interface Ends {
  readonly client: Endpoint;
  readonly local: Endpoint;
}

/** Undefined when the client has closed already: the kernel knows its addresses no more. */
function endsOf(client: Socket): Ends | undefined {
  const { remoteAddress, remotePort, localAddress, localPort } = client;
  if (remoteAddress === undefined || remotePort === undefined) return undefined;
  if (localAddress === undefined || localPort === undefined) return undefined;
  return {
    client: { address: withoutZone(remoteAddress), port: remotePort },
    local: { address: withoutZone(localAddress), port: localPort },
  };
}

/** `fe80::1%eth0`: the zone means nothing on another machine. */
function withoutZone(address: string): string {
  return address.split('%', 1)[0] ?? address;
}
