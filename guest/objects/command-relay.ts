import { randomInt } from 'node:crypto';
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
 * The parent's objects for a command beside the agent, or without one: it holds a session of its own, or, where the parent
 * says that one is live, opens streams of that one with the agent's key. The session is always asked for first: a stream
 * without one is what a rogue process would send, and the parent's audit trail says so.
 */
export function relayForCommand(parent: TransportAddress, key: Buffer): CommandRelay {
  let own: AskedSession | undefined;
  let flowId = FIRST_FLOW_ID + 2 * randomInt(FLOW_ID_STEPS);
  const open = async (): Promise<Stream> => {
    own ??= askForSession(parent, key, {
      onTaken: () => {
        own = undefined;
      },
      onLost: () => relay.close(),
    });
    await Promise.race([own.session.ready(SESSION_WAIT_MS), own.taken]);
    flowId += 2;
    return openObjectStream(parent, flowId, key);
  };
  const relay = connectRelay({ open });
  const close = async (): Promise<void> => {
    relay.close();
    await own?.session.close();
  };
  return { relay, close };
}

interface AskedSession {
  readonly session: SessionClient;
  /** Resolves when another session turns out to be live; this one is then given up. */
  readonly taken: Promise<void>;
}

function askForSession(
  parent: TransportAddress,
  key: Buffer,
  { onTaken, onLost }: { onTaken(): void; onLost(): void },
): AskedSession {
  const taken = Promise.withResolvers<void>();
  const session = new SessionClient({
    parent,
    key,
    capabilities: CAPABILITIES.objects,
    agent: 'postern-volume',
    onState(state) {
      if (state.phase !== 'waiting' || state.code !== 'ERR_SESSION_TAKEN') return;
      onTaken();
      void session.close();
      taken.resolve();
    },
    onLost,
    onReset: () => {},
  });
  session.start();
  return { session, taken: taken.promise };
}
