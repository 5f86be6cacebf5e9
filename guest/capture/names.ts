import type { Socket } from 'node:net';
import { isPosternError } from '../../shared/errors.ts';
import { resetSocket } from '../../shared/flow/splice.ts';
import type { CompiledPolicy } from '../../shared/policy/compile.ts';
import type { Gate } from '../flow/gate.ts';
import { joinClient, whileConnected } from '../proxy/client-socket.ts';
import { portsOf } from './ports.ts';
import { StandIns } from './stand-ins.ts';

const NO_GREETING = Buffer.alloc(0);

export interface NameCapture {
  readonly standIns: StandIns;
  /** Where flows go; none are taken before. */
  attach(gate: Gate): void;
  /** Stops listening, and resets applications that have no flow yet. */
  close(): void;
}

/**
 * The capture mode `names`: the DNS server answers with a stand-in, the application connects to it, and the flow goes
 * the way of a proxy's request for that name. TCP has accepted it by then: a refusal is a reset.
 */
export function captureNames(policy: CompiledPolicy): NameCapture {
  const waiting = new Set<Socket>();
  let attached: Gate | undefined;
  const standIns = new StandIns({
    portsOf: (name) => portsOf(policy, name),
    onFlow: (socket, name, port) => {
      socket.on('error', () => {});
      waiting.add(socket);
      serve(socket, name, port, attached)
        .catch((error: unknown) => {
          if (!isPosternError(error)) throw error;
          resetSocket(socket);
        })
        .finally(() => waiting.delete(socket));
    },
  });
  return {
    standIns,
    attach: (gate) => {
      attached = gate;
    },
    close: () => {
      standIns.close();
      for (const socket of waiting) resetSocket(socket);
    },
  };
}

async function serve(socket: Socket, host: string, port: number, gate: Gate | undefined): Promise<void> {
  if (gate === undefined) return resetSocket(socket);
  const result = await whileConnected(socket, (gone) => gate.connect({ host, port, via: 'names' }, gone));
  if (result.kind === 'denied') return resetSocket(socket);
  await joinClient(gate, socket, result, NO_GREETING);
}
