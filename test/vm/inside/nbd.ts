import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { pino } from 'pino';
import { attach } from '../../../guest/nbd/attach.ts';
import { NbdServer } from '../../../guest/nbd/server.ts';
import { MemoryDevice } from '../../guest/nbd/memory-device.ts';
import { exerciseFileSystem, FILE_SYSTEMS } from '../../scenario/nbd/file-system.ts';
import { program } from '../../scenario/nbd/program.ts';
import { requireVm } from './guard.ts';

requireVm();

const DEVICE_BYTES = 256 * 1024 * 1024;
const MOUNT_POINT = '/tmp/mounted';
const SOCKET = '/tmp/nbd.sock';

describe('NBD server and the kernel’s own client', () => {
  const server = new NbdServer({ log: pino({ level: 'warn' }) });
  before(() => mkdirSync(MOUNT_POINT));
  after(() => server.close(5000));

  for (const kind of FILE_SYSTEMS) {
    it(`${kind.name} on a device attached by netlink`, async () => {
      const device = new MemoryDevice(DEVICE_BYTES);
      const attached = await attach(server, { name: kind.name, device });
      await exerciseFileSystem(kind, attached.path, MOUNT_POINT);
      assert.ok(device.flushes > 0, 'the kernel flushes');
      await attached.detach();
      assert.equal(server.connectionCount, 0);
    });
  }

  it('grows under the kernel', async () => {
    const device = new MemoryDevice(DEVICE_BYTES);
    const attached = await attach(server, { name: 'growing', device }, { index: 3 });
    assert.equal(attached.path, '/dev/nbd3');
    assert.equal(await sizeOf(attached.path), DEVICE_BYTES);
    device.sizeBytes *= 2;
    await attached.resize();
    assert.equal(await sizeOf(attached.path), 2 * DEVICE_BYTES);
    await assert.rejects(attach(server, { name: 'again', device }, { index: 3 }), { code: 'ERR_NBD_BUSY' });
    await attached.detach();
  });

  it('shows a read-only export as a read-only device', async () => {
    const device = new MemoryDevice(1024 * 1024, { readOnly: true });
    const attached = await attach(server, { name: 'locked', device });
    assert.equal((await program('blockdev', '--getro', attached.path)).trim(), '1');
    await attached.detach();
  });

  it('notices when somebody else takes the device away', async () => {
    const attached = await attach(server, { name: 'taken', device: new MemoryDevice(1024 * 1024) });
    await program('nbd-client', '-d', attached.path);
    await attached.detached;
    assert.equal(server.connectionCount, 0);
  });

  it('says that it may not without CAP_SYS_ADMIN', () => {
    const script = `
      const { attach } = await import('./guest/nbd/attach.ts');
      const { NbdServer } = await import('./guest/nbd/server.ts');
      const { MemoryDevice } = await import('./test/guest/nbd/memory-device.ts');
      const { pino } = await import('pino');
      const server = new NbdServer({ log: pino({ level: 'silent' }) });
      await attach(server, { name: '', device: new MemoryDevice(4096) }).then(
        () => process.exit(1),
        (error) => process.stdout.write(error.code),
      );
    `;
    const args = ['--reuid=nobody', '--clear-groups', process.execPath, '--input-type=module', '-e', script];
    assert.equal(execFileSync('setpriv', args, { encoding: 'utf8' }), 'ERR_NBD_DENIED');
  });

  it('serves nbd-client over the unix socket, with several connections', async () => {
    const [, ext4] = FILE_SYSTEMS;
    assert.ok(ext4);
    server.add({ name: 'client', device: new MemoryDevice(DEVICE_BYTES) });
    const listener = await server.listen(SOCKET);
    await program('nbd-client', '-unix', SOCKET, '/dev/nbd5', '-N', 'client', '-b', '4096', '-C', '4');
    await exerciseFileSystem(ext4, '/dev/nbd5', MOUNT_POINT);
    await program('nbd-client', '-d', '/dev/nbd5');
    await listener.close();
    await server.remove('client', 5000);
  });
});

async function sizeOf(path: string): Promise<number> {
  return Number(await program('blockdev', '--getsize64', path));
}
