import { PosternError } from '../../shared/errors.ts';
import type { TransportAddress } from '../../shared/transport/address.ts';
import { CAPABILITIES } from '../../shared/wire/control.ts';
import type { SessionClient } from '../session/client.ts';
import { connectRelay, type Relay } from './client.ts';
import { openObjectStream } from './open.ts';

/** A session that is just coming back; a longer outage is waited for above, where the deadline of the request is known. */
const SESSION_WAIT_MS = 2_000;

export interface SessionRelayOptions {
  readonly parent: TransportAddress;
  readonly session: SessionClient;
  /** Even, never the same twice. */
  takeFlowId(): number;
}

/** The parent's objects through a session that this process holds. To be closed whenever the session is lost. */
export function relayOverSession({ parent, session, takeFlowId }: SessionRelayOptions): Relay {
  return connectRelay({
    async open() {
      const { key, welcome } = await session.ready(SESSION_WAIT_MS);
      if ((welcome.capabilities & CAPABILITIES.objects) === 0) {
        throw new PosternError('ERR_WIRE_VERSION', 'this parent carries no objects; update it');
      }
      return openObjectStream(parent, takeFlowId(), key);
    },
  });
}
