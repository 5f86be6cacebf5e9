import { randomInt } from 'node:crypto';
import { isPosternError } from '../../shared/errors.ts';
import type { TransportAddress } from '../../shared/transport/address.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { CAPABILITIES } from '../../shared/wire/control.ts';
import { SessionClient } from '../session/client.ts';
import { connectRelay, type Relay } from './client.ts';
import { openObjectStream } from './open.ts';

/** A parent that is there registers a session in milliseconds. */
const SESSION_WAIT_MS = 10_000;
/** An agent counts its flows from 2: it gets here after a thousand years. */
const FIRST_FLOW_ID = 2 ** 42;
const FLOW_ID_STEPS = 2 ** 40;

export interface CommandRelay {
  readonly relay: Relay;
  close(): Promise<void>;
}

/**
 * The parent's objects for a command beside the agent, or without one: with the agent's key it opens streams of the agent's
 * session while there is one, else it holds a session of its own.
 */
export function relayForCommand(parent: TransportAddress, key: Buffer): CommandRelay {
  let session: SessionClient | undefined;
  let flowId = FIRST_FLOW_ID + 2 * randomInt(FLOW_ID_STEPS);
  const next = (): number => {
    flowId += 2;
    return flowId;
  };
  const open = async (): Promise<Stream> => {
    if (session === undefined) {
      try {
        return await openObjectStream(parent, next(), key);
      } catch (error) {
        if (!isPosternError(error, 'ERR_SESSION_UNREGISTERED')) throw error;
      }
      session ??= ownSession(parent, key, () => relay.close());
    }
    await session.ready(SESSION_WAIT_MS);
    return openObjectStream(parent, next(), key);
  };
  const relay = connectRelay({ open });
  const close = async (): Promise<void> => {
    relay.close();
    await session?.close();
  };
  return { relay, close };
}

function ownSession(parent: TransportAddress, key: Buffer, onLost: () => void): SessionClient {
  const session = new SessionClient({
    parent,
    key,
    capabilities: CAPABILITIES.objects,
    agent: 'postern-volume',
    onState: () => {},
    onLost,
    onReset: () => {},
  });
  session.start();
  return session;
}
