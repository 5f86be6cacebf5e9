import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { streamPair } from '../../shared/transport/pair.ts';
import { streamConformance, transportConformance } from '../conformance/transport.ts';
import { Hypervisor } from './hypervisor.ts';
import { endpointsUnderTest } from './kinds.ts';

const PORT = 5000;
const folder = mkdtempSync(join(tmpdir(), 'postern-transport-'));
after(() => rmSync(folder, { recursive: true }));

transportConformance('unix', () => {
  const path = join(folder, 'plain.sock');
  return endpointsUnderTest({
    listenAt: { kind: 'unix', path },
    connectTo: { kind: 'unix', path },
    nobody: { kind: 'unix', path: join(folder, 'nobody.sock') },
    peers: [
      { kind: 'unix', path },
      { kind: 'unix', path },
    ],
  });
});

streamConformance('pair', async () => ({
  open: async () => streamPair(),
  peers: [{ kind: 'pair' }, { kind: 'pair' }],
  close: async () => undefined,
}));

const hypervisor = new Hypervisor(folder);

before(async () => {
  await hypervisor.start();
  await hypervisor.openDial(PORT);
});
after(() => hypervisor.stop());

transportConformance('hybrid, host to guest', async () => {
  const path = hypervisor.hostPath;
  const guestPath = hypervisor.guestListenPath(PORT);
  return endpointsUnderTest({
    listenAt: { kind: 'unix', path: guestPath },
    connectTo: { kind: 'hybrid', path, port: PORT },
    nobody: { kind: 'hybrid', path, port: PORT + 1 },
    peers: [
      { kind: 'hybrid', path },
      { kind: 'unix', path: guestPath },
    ],
  });
});

transportConformance('hybrid, guest to host', async () => {
  const path = hypervisor.hostPath;
  const dialPath = hypervisor.guestDialPath(PORT);
  return endpointsUnderTest({
    listenAt: { kind: 'hybrid', path, port: PORT },
    connectTo: { kind: 'unix', path: dialPath },
    nobody: { kind: 'unix', path: join(folder, 'no-such-dial.sock') },
    peers: [
      { kind: 'unix', path: dialPath },
      { kind: 'hybrid', path },
    ],
  });
});
