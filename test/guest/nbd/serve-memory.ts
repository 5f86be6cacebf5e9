import { createServer } from 'node:net';
import { NbdServer } from '../../../guest/nbd/server.ts';
import { createLogger } from '../../../shared/log.ts';
import { MemoryDevice } from './memory-device.ts';

// Serves one device in memory on a unix socket: node serve-memory.ts PATH BYTES. For clients that need a process.
const [path = '', bytes = ''] = process.argv.slice(2);
const server = new NbdServer({ log: createLogger('nbd', 'json', 'warn') });
server.add({ name: '', device: new MemoryDevice(Number(bytes)) });
createServer({ allowHalfOpen: true }, (socket) => server.serve(socket)).listen(path, () => {
  process.stdout.write('ready\n');
});
