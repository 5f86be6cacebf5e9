import type { Socket } from 'node:net';
import { isPosternError, type PosternError } from '../../shared/errors.ts';
import type { FlowOutcome, StartFlow } from '../../shared/flow/flow.ts';
import type { Logger } from '../../shared/log.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import type { Endpoint } from '../../shared/wire/endpoint.ts';
import { encodeStreamHeader } from '../../shared/wire/header.ts';
import { encodeInboundOpen } from '../../shared/wire/open.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { decodeReply, REPLY_BYTES, type ReplyStatus } from '../../shared/wire/reply.ts';
import type { Audit } from '../audit.ts';
import type { Guest } from '../guest/guest.ts';

/** A guest on the same host answers in microseconds; one that does not within this time is not there. */
export const INBOUND_CONNECT_TIMEOUT_MS = 5_000;
/** The agent connects to its workload first, which may be slow to accept. */
export const INBOUND_REPLY_TIMEOUT_MS = 10_000;

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
  client.on('error', () => {});
  const ends = endpointsOf(client);
  const turnAway = (outcome: InboundOutcome, reason: string): void => {
    options.observer.onInboundOpen(guest, outcome);
    const details = { servicePort, client: ends?.client.address, reason };
    options.audit.say(guest.name, `inbound ${servicePort} ${reason}`, 'inbound client turned away', details);
    if (!client.destroyed) client.resetAndDestroy();
  };
  const { session } = guest;
  if (ends === undefined) return turnAway('cancelled', 'the client is gone');
  if (session === undefined || !session.accepting) return turnAway('no-session', 'the guest has no session');
  const quota = guest.usage.beginInbound();
  if (quota !== undefined) return turnAway('limit', `quota ${quota}`);
  const flowId = session.takeFlowId();
  const cancel = new AbortController();
  session.add(flowId, { abort: () => cancel.abort() });
  client.once('close', () => cancel.abort());
  const body = encodeInboundOpen({ servicePort, ...ends });
  const opened = await knock(guest, encodeStreamHeader('inbound', flowId, body, session.key), cancel.signal);
  guest.usage.inboundPending -= 1;
  if (opened.stream === undefined) {
    session.remove(flowId);
    guest.usage.inbound -= 1;
    return turnAway(cancel.signal.aborted ? 'cancelled' : opened.outcome, opened.reason);
  }
  options.observer.onInboundOpen(guest, 'ok');
  const clientText = `${ends.client.address}:${ends.client.port}`;
  options.log.info({ guest: guest.name, flowId, servicePort, client: clientText }, 'inbound flow');
  const { limiter } = guest.usage;
  const flow = options.startFlow(client, opened.stream, {
    ...(limiter === undefined ? {} : { limiter }),
    sendReset: () => session.sendReset(flowId),
    onDone: (outcome) => {
      session.remove(flowId);
      guest.flows.delete(flow);
      guest.usage.inbound -= 1;
      options.observer.onFlowDone(guest, outcome);
    },
  });
  guest.flows.add(flow);
  session.replace(flowId, flow);
}

type Knock =
  | { readonly stream: Stream }
  | { readonly stream?: undefined; readonly outcome: InboundOutcome; readonly reason: string };

/** Opens a stream to the guest's agent and waits for its answer; `signal` gives both up. */
async function knock(guest: Guest, header: Buffer, signal: AbortSignal): Promise<Knock> {
  const { agent } = guest.config;
  if (agent === undefined) return { outcome: 'no-agent', reason: 'the guest has no agent address' };
  let stream: Stream | undefined;
  const giveUp = (): void => {
    stream?.destroy();
  };
  try {
    stream = await connectStream(agent, { signal, timeoutMs: INBOUND_CONNECT_TIMEOUT_MS });
    stream.on('error', () => {});
    signal.addEventListener('abort', giveUp);
    if (signal.aborted) giveUp();
    stream.write(header);
    const { status } = decodeReply(await readExactly(stream, REPLY_BYTES, INBOUND_REPLY_TIMEOUT_MS));
    if (status === 'ok' && !signal.aborted) return { stream };
    stream.destroy();
    return { outcome: status, reason: `the guest answered ${status}` };
  } catch (error) {
    if (!isPosternError(error)) throw error;
    stream?.destroy();
    return { outcome: 'no-agent', reason: reasonOf(error) };
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}

/** Without the peer's own bytes or addresses: it becomes part of the audit's key. */
function reasonOf(error: PosternError): string {
  return `the agent's stream: ${error.code}`;
}

/** Undefined when the client has closed already: the kernel knows its addresses no more. */
function endpointsOf(client: Socket): { client: Endpoint; local: Endpoint } | undefined {
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
