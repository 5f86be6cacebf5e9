import { Socket, type SocketConstructorOpts } from 'node:net';
import { constants, getPriority, setPriority } from 'node:os';
import { parentPort } from 'node:worker_threads';
import { errnoOf } from '../transport/failure.ts';
import { adoptStream } from '../transport/native/handle.ts';
import { closeDescriptor, duplicate } from '../transport/native/libc.ts';
import { requireTransport } from '../transport/self-test.ts';
import { streamOver } from '../transport/stream.ts';
import type { FromThread, Lent, ToThread } from './bulk-message.ts';
import type { Flow } from './flow.ts';
import { startFlow } from './splice.ts';

/**
 * How much nicer than its process a thread is. Beside busy threads the main loop is then scheduled at once when it has
 * something to do, and where cores are scarce the ends of the flows, not we, set the pace: with 5, a small message
 * waited half as long beside bulk as with 0, and bulk was none the slower; 15 gained little more.
 */
const BULK_NICE = 5;

const NO_DESCRIPTORS: ReadonlySet<string | undefined> = new Set(['EMFILE', 'ENFILE']);

/** A bulk thread: runs the flows that bulk-threads.ts lends to it, by the same splice, on descriptors of its own. */
const flows = new Map<number, Flow>();

function tell(message: FromThread): void {
  parentPort?.postMessage(message);
}

function take(id: number, { localFd, tunnelFd, peer, counts }: Lent): void {
  const copies = duplicateBoth(localFd, tunnelFd);
  if (copies === undefined) {
    tell({ type: 'returned', id });
    return;
  }
  const tunnel = streamOver(adoptStream(copies.tunnel), peer);
  const options = { fd: copies.local, allowHalfOpen: true, manualStart: true };
  const local = new Socket(options as SocketConstructorOpts);
  const flow = startFlow(local, tunnel, {
    counts,
    sendReset: () => tell({ type: 'reset', id }),
    onDone: ({ end }) => {
      flows.delete(id);
      tell({ type: 'done', id, end });
    },
  });
  flows.set(id, flow);
}

/** Undefined when the process has no descriptors left: the flow then stays where it is. */
function duplicateBoth(localFd: number, tunnelFd: number): { local: number; tunnel: number } | undefined {
  let local: number | undefined;
  try {
    local = duplicate(localFd);
    return { local, tunnel: duplicate(tunnelFd) };
  } catch (error) {
    if (!NO_DESCRIPTORS.has(errnoOf(error))) throw error;
    if (local !== undefined) closeDescriptor(local);
    return undefined;
  }
}

parentPort?.on('message', (message: ToThread) => {
  if (message.type === 'lend') take(message.id, message);
  // The end of a flow and its abort may cross.
  else flows.get(message.id)?.abort(message.end);
});
// On Linux, of the calling thread alone (setpriority(2)).
setPriority(Math.min(getPriority() + BULK_NICE, constants.priority.PRIORITY_LOW));
await requireTransport();
tell({ type: 'ready' });
