import { keepMemorySmall } from '../../../guest/disk/process-memory.ts';
import { NbdServer } from '../../../guest/nbd/server.ts';
import { attachVolume } from '../../../guest/volume/attach.ts';
import { createLogger } from '../../../shared/log.ts';
import { openPlace } from './served-volume.ts';

/**
 * A guest with one volume, attached and served on a unix socket, in a process of its own: PARENT-SOCKET ANCHOR-FOLDER
 * NBD-SOCKET [takeover]. Started with an IPC channel: says { attachMs } once it serves, answers any message with the counts of its
 * store, and detaches and ends on SIGTERM.
 */
const GRACE_MS = 5000;

keepMemorySmall();
const [parentSocket = '', anchorFolder = '', nbdSocket = '', how = ''] = process.argv.slice(2);
const { access, relay } = openPlace({ parentSocket, anchorFolder });
const start = performance.now();
const volume = await attachVolume({ ...access, takeover: how === 'takeover' });
const attachMs = performance.now() - start;
const server = new NbdServer({ log: createLogger('nbd', 'json', 'warn') });
server.add({ name: '', device: volume });
const listener = await server.listen(nbdSocket);
process.on('message', () => process.send?.(volume.parts.objects.counts));
process.once('SIGTERM', async () => {
  await listener.close();
  await server.close(GRACE_MS);
  await volume.detach();
  relay.close();
  process.disconnect();
});
process.send?.({ attachMs });
