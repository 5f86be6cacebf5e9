import type { Socket } from 'node:net';
import { PosternError } from '../../shared/errors.ts';
import type { FlowOutcome, StartFlow } from '../../shared/flow/flow.ts';
import type { Logger } from '../../shared/log.ts';
import type { Stream } from '../../shared/transport/transport.ts';
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
  const { guest, stream, flowId } = opened;
  const open = decodeTcpOpen(opened.body);
  const cancel = new AbortController();
  if (!session.add(flowId, { abort: () => cancel.abort() })) {
    throw new PosternError('ERR_WIRE_MALFORMED', `flow id ${flowId} is in use`);
  }
  const refuse = (status: ReplyStatus): void => {
    session.remove(flowId);
    options.observer.onEgressOpen(guest, status);
    closeWith(stream, status);
  };
  const quota = options.draining() ? 'draining' : guest.usage.beginEgress();
  if (quota !== undefined) {
    options.audit.say(guest.name, `quota ${quota}`, 'flow over a quota', { quota });
    return refuse('limit');
  }
  const release = (): void => {
    guest.usage.flows -= 1;
  };
  const candidates = permitted(guest, open, options.audit);
  if (candidates.length === 0) {
    guest.usage.dials -= 1;
    release();
    return refuse('denied');
  }
  const outcome = await dialFor(opened, open.port, candidates, cancel, options.observer);
  if (outcome.kind === 'connected' && !stream.destroyed) {
    return splice(opened, session, outcome.socket, outcome.addressIndex, options, release);
  }
  release();
  if (outcome.kind === 'failed') return refuse(outcome.failure);
  session.remove(flowId);
  if (outcome.kind === 'connected') outcome.socket.destroy();
  stream.destroy();
  options.observer.onEgressOpen(guest, 'cancelled');
}

/** The addresses that the guard lets the guest reach; the others are written down. */
function permitted(guest: Guest, open: TcpOpen, audit: Audit): Candidate[] {
  const candidates: Candidate[] = [];
  for (const [index, address] of open.addresses.entries()) {
    const decision = guest.guard.decide('tcp', address, open.port);
    if (decision.verdict === 'allow') {
      candidates.push({ address: decision.address ?? address, index });
    } else {
      const { reason, rule, special } = decision;
      const details = { address, port: open.port, protocol: 'tcp', reason, rule, special };
      audit.say(guest.name, `guard ${address} ${open.port}`, 'destination refused by the guard', details);
    }
  }
  return candidates;
}

async function dialFor(
  { guest, stream }: OpenedStream,
  port: number,
  candidates: readonly Candidate[],
  cancel: AbortController,
  observer: EgressObserver,
): Promise<DialOutcome> {
  const startedAt = performance.now();
  const unwatch = watchGone(stream, () => cancel.abort());
  const outcome = await dial(candidates, port, cancel.signal);
  unwatch();
  guest.usage.dials -= 1;
  observer.onDialed(guest, (performance.now() - startedAt) / 1000);
  return outcome;
}

function splice(
  { guest, stream, flowId }: OpenedStream,
  session: Session,
  socket: Socket,
  addressIndex: number,
  options: EgressOptions,
  release: () => void,
): void {
  const { limiter } = guest.usage;
  stream.write(encodeReply('ok', addressIndex));
  options.observer.onEgressOpen(guest, 'ok');
  const destination = `${socket.remoteAddress}:${socket.remotePort}`;
  options.log.debug({ guest: guest.name, flowId, destination }, 'flow opened');
  const flow = options.startFlow(socket, stream as Stream, {
    ...(limiter === undefined ? {} : { limiter }),
    sendReset: () => session.sendReset(flowId),
    onDone: (outcome) => {
      session.remove(flowId);
      guest.flows.delete(flow);
      release();
      options.observer.onFlowDone(guest, outcome);
      options.log.debug({ guest: guest.name, flowId, destination, ...outcome }, 'flow closed');
    },
  });
  guest.flows.add(flow);
  session.replace(flowId, flow);
}
