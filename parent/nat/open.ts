import { PosternError } from '../../shared/errors.ts';
import type { Logger } from '../../shared/log.ts';
import { encodeReply, type ReplyStatus } from '../../shared/wire/reply.ts';
import type { Audit } from '../audit.ts';
import { closeWith, type OpenedStream } from '../gate/gate.ts';
import type { Guest } from '../guest/guest.ts';
import type { Session } from '../session/session.ts';
import { ASSOCIATION_IDLE_MS, Association, type AssociationEnd } from './association.ts';

/** Holds the flow id until there is an association, in the same turn. */
const UNBORN = { abort: () => {} };

export interface AssociationObserver {
  onAssociation(guest: Guest, outcome: Extract<ReplyStatus, 'ok' | 'limit'>): void;
}

export interface OpenAssociationOptions {
  readonly audit: Audit;
  readonly log: Logger;
  readonly observer: AssociationObserver;
  readonly idleMs?: number;
  /** True while the parent drains: it takes no new associations. */
  draining(): boolean;
}

/**
 * Serves one proven stream of kind `udp`: quota, answer, then datagrams. It is not waited for when the parent drains, as
 * UDP has no end: it lives for as long as its session. Owns the stream. @throws PosternError ERR_WIRE_MALFORMED
 */
export async function openAssociation(
  { guest, stream, flowId, body }: OpenedStream,
  session: Session,
  options: OpenAssociationOptions,
): Promise<void> {
  const { audit, log, observer, idleMs = ASSOCIATION_IDLE_MS } = options;
  if (body.length !== 0) throw new PosternError('ERR_WIRE_MALFORMED', 'a udp stream with a body');
  // Its end may have come behind the header, before anybody listened.
  if (stream.readableEnded || stream.destroyed) {
    stream.destroy();
    return;
  }
  if (!session.add(flowId, UNBORN))
    throw new PosternError('ERR_WIRE_MALFORMED', `flow id ${flowId} is in use`);
  const quota = options.draining() ? 'draining' : guest.usage.beginAssociation();
  if (quota !== undefined) {
    session.remove(flowId);
    audit.say(guest.name, `quota ${quota}`, 'association over a quota', { event: 'flow.limited', quota });
    observer.onAssociation(guest, 'limit');
    return closeWith(stream, 'limit');
  }
  const about = { guest: guest.name, flowId };
  stream.write(encodeReply('ok'));
  observer.onAssociation(guest, 'ok');
  log.debug({ event: 'association.opened', ...about }, 'association opened');
  const onDone = (end: AssociationEnd): void => {
    session.remove(flowId);
    guest.usage.associations -= 1;
    log.debug({ event: 'association.closed', ...about, end }, 'association closed');
  };
  session.replace(flowId, new Association({ guest, stream, audit, idleMs, onDone }));
}
