import { spawn } from 'node:child_process';
import { join } from 'node:path';

/** `npm run bench:dns`: everything happens in a network namespace of its own; see worker.ts. */
const inside = 'ip link set lo up; ip address add 127.0.0.2/8 dev lo; exec "$@"';
const namespace = ['-n', '-p', '-f', '--kill-child=KILL', '--mount-proc'];
const worker = [process.execPath, join(import.meta.dirname, 'worker.ts'), ...process.argv.slice(2)];
const child = spawn('unshare', [...namespace, 'sh', '-c', inside, 'sh', ...worker], { stdio: 'inherit' });
child.on('exit', (code) => {
  process.exitCode = code ?? 1;
});
