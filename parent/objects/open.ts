import { PosternError } from '../../shared/errors.ts';
import { encodeReply } from '../../shared/wire/reply.ts';
import type { Audit } from '../audit.ts';
import { closeWith, type OpenedStream } from '../gate/gate.ts';
import type { Session } from '../session/session.ts';
import type { ObjectRelay } from './relay.ts';

export interface ObjectsOptions {
  readonly audit: Audit;
  /** The one in force now. */
  relay(): ObjectRelay;
  /** True while the parent drains: it takes no new streams. */
  draining(): boolean;
}

/**
 * Serves one proven stream of kind `object`: grant, answer, then the protocol of object.md. It lives no longer than its
 * session. Owns the stream. @throws PosternError ERR_WIRE_MALFORMED
 */
export async function openObjects(
  { guest, stream, flowId, body }: OpenedStream,
  session: Session,
  options: ObjectsOptions,
): Promise<void> {
  if (body.length !== 0) throw new PosternError('ERR_WIRE_MALFORMED', 'an object stream with a body');
  const relay = options.relay();
  if (!relay.has(guest.name)) {
    options.audit.say(guest.name, 'objects', 'object stream refused', {
      event: 'objects.refused',
      reason: 'no-grant',
    });
    return closeWith(stream, 'denied');
  }
  if (options.draining()) return closeWith(stream, 'limit');
  const ended = new AbortController();
  if (!session.add(flowId, { abort: () => ended.abort() })) {
    throw new PosternError('ERR_WIRE_MALFORMED', `flow id ${flowId} is in use`);
  }
  guest.objectStreams.add(stream);
  try {
    stream.write(encodeReply('ok'));
    await relay.serve(guest.name, stream, ended.signal);
  } finally {
    guest.objectStreams.delete(stream);
    session.remove(flowId);
  }
}
