import { NbdServer } from '../../../guest/nbd/server.ts';
import { createLogger } from '../../../shared/log.ts';
import { MemoryDevice } from './memory-device.ts';

// Serves one device in memory on a unix socket, for clients that must not share a process with their server:
// node serve-memory.ts PATH BYTES
const [path = '', bytes = ''] = process.argv.slice(2);
const server = new NbdServer({ log: createLogger('nbd', 'json', 'warn') });
server.add({ name: '', device: new MemoryDevice(Number(bytes)) });
const listener = await server.listen(path);
process.once('SIGTERM', async () => {
  await listener.close();
  await server.close(1000);
});
process.stdout.write('ready\n');
