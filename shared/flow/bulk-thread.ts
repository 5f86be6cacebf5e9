import { Socket, type SocketConstructorOpts } from 'node:net';
import { parentPort } from 'node:worker_threads';
import { errnoOf } from '../transport/failure.ts';
import { adoptStream } from '../transport/native/handle.ts';
import { closeDescriptor, duplicate } from '../transport/native/libc.ts';
import { requireTransport } from '../transport/self-test.ts';
import { streamOver } from '../transport/stream.ts';
import type { FromThread, Lent, ToThread } from './bulk-message.ts';
import type { Flow } from './flow.ts';
import { startFlow } from './splice.ts';

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
    if (errnoOf(error) !== 'EMFILE') throw error;
    if (local !== undefined) closeDescriptor(local);
    return undefined;
  }
}

parentPort?.on('message', (message: ToThread) => {
  if (message.type === 'lend') take(message.id, message);
  // The end of a flow and its abort may cross.
  else flows.get(message.id)?.abort(message.end);
});
await requireTransport();
tell({ type: 'ready' });
