import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';

/** Listens with the shortest queue there is and never accepts. */
const LISTENER = `
import socket, sys
s = socket.socket()
s.bind(('127.0.0.1', 0))
s.listen(0)
print(s.getsockname()[1], flush=True)
sys.stdin.read()
`;
const FILLERS = 4;

/**
 * A port on loopback that answers no SYN: its queue is full, and Linux then drops what comes. Dials to it hang as they
 * do at a black hole, without a packet leaving the host.
 */
export async function blackHole(t: TestContext): Promise<number> {
  const child = spawn('python3', ['-c', LISTENER], { stdio: ['pipe', 'pipe', 'inherit'] });
  const fillers: Socket[] = [];
  t.after(() => {
    child.stdin.end();
    for (const filler of fillers) filler.destroy();
  });
  const [line] = await once(child.stdout, 'data');
  const port = Number(String(line));
  for (let index = 0; index < FILLERS; index += 1) {
    fillers.push(connect({ port, host: '127.0.0.1' }).on('error', () => {}));
  }
  // One connection stands in the queue; the others wait for a place, as all later ones will.
  await once(fillers[0] as Socket, 'connect');
  return port;
}
