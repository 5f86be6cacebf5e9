import { PosternError } from '../../shared/errors.ts';
import type { Logger } from '../../shared/log.ts';
import { decodeHello, negotiateVersion } from '../../shared/wire/control.ts';
import { proofHolds } from '../../shared/wire/header.ts';
import type { Audit } from '../audit.ts';
import { closeWith, type OpenedStream } from '../gate/gate.ts';
import type { Guest } from '../guest/guest.ts';
import { Session } from './session.ts';

/**
 * Makes the holder of the key in this HELLO the guest's session, or throws what the stream is to be answered.
 * @throws PosternError ERR_WIRE_MALFORMED, ERR_WIRE_VERSION, ERR_SESSION_PROOF, ERR_SESSION_TAKEN, ERR_SESSION_STATE
 */
export async function register(
  { guest, stream, flowId, body }: OpenedStream,
  header: Buffer,
  { log, audit }: { readonly log: Logger; readonly audit: Audit },
): Promise<void> {
  const hello = decodeHello(body);
  if (flowId !== 0) throw new PosternError('ERR_WIRE_MALFORMED', `control stream with flow id ${flowId}`);
  if (!proofHolds(hello.key, header, body)) {
    throw new PosternError('ERR_SESSION_PROOF', 'a HELLO that does not prove its own key');
  }
  const version = negotiateVersion(hello);
  if (guest.slot.isHeldBy(hello.key)) {
    // No stranger: a command beside the agent, which asks before it uses the agent's session, or the agent twice.
    const details = { event: 'session.held', agent: hello.agent };
    audit.say(guest.name, 'held', 'the session’s own key asked for another session', details, 'info');
    return closeWith(stream, 'taken');
  }
  await guest.slot.claim(hello.key);
  // It may have closed while the claim was written, or the guest may be gone; its key is remembered all the same.
  if (stream.destroyed || guest.retired) {
    stream.destroy();
    return guest.slot.vacate();
  }
  const session: Session = new Session(stream, hello.key, version, {
    onGoaway: (deadlineMs) =>
      log.info({ event: 'session.draining', guest: guest.name, deadlineMs }, 'guest drains'),
    onLost: (reason) => forget(guest, reason, log),
  });
  guest.session = session;
  log.info({ event: 'session.up', guest: guest.name, agent: hello.agent, version }, 'guest registered');
}

function forget(guest: Guest, reason: PosternError, log: Logger): void {
  guest.session = undefined;
  guest.slot.vacate();
  log.warn({ event: 'session.lost', guest: guest.name, reason: reason.message }, 'session lost');
}
