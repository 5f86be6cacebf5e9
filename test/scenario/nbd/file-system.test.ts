import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { exerciseFileSystem, FILE_SYSTEMS } from './file-system.ts';
import { program } from './program.ts';

const DEVICE_BYTES = 256 * 1024 * 1024;
const skip = process.getuid?.() === 0 ? false : 'mounting a file system needs root';

// nbdfuse makes a file of the export, losetup a block device of the file: a file system without a kernel that has nbd.
describe('file systems over the NBD server', { skip }, () => {
  let folder: string;
  let socket: string;
  let server: ChildProcess;
  let fuse: ChildProcess | undefined;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'postern-nbd-fs-'));
    socket = join(folder, 'nbd.sock');
    // A process of its own: this one may block in a system call that waits for the server.
    const script = join(import.meta.dirname, '../../guest/nbd/serve-memory.ts');
    server = spawn(process.execPath, [script, socket, String(DEVICE_BYTES)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    if (server.stdout !== null) await Promise.race([once(server.stdout, 'data'), failed(server)]);
    await mkdir(join(folder, 'fuse'));
    await mkdir(join(folder, 'mounted'));
    const uri = `nbd+unix:///?socket=${socket}`;
    fuse = spawn('nbdfuse', [join(folder, 'fuse'), uri], { stdio: 'inherit' });
    await Promise.race([untilThere(join(folder, 'fuse/nbd')), failed(fuse)]);
  });
  after(async () => {
    const ended = [server, fuse].map((child) => child !== undefined && once(child, 'exit'));
    await program('umount', join(folder, 'fuse'));
    server.kill('SIGTERM');
    await Promise.all(ended);
    await rm(folder, { recursive: true });
  });

  for (const kind of FILE_SYSTEMS) {
    it(`${kind.name}: what was written is read after a second mount, and checks clean`, async () => {
      const args = ['-f', '--show', '--direct-io=on', '-b', '4096', join(folder, 'fuse/nbd')];
      const device = (await program('losetup', ...args)).trim();
      try {
        await exerciseFileSystem(kind, device, join(folder, 'mounted'));
      } finally {
        await program('losetup', '-d', device);
      }
    });
  }
});

async function untilThere(path: string): Promise<void> {
  while (!(await exists(path))) await new Promise((resolve) => setTimeout(resolve, 20));
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Rejects when the program ends, which it should not while it is needed; never resolves. */
function failed(child: ChildProcess): Promise<never> {
  const ended = new Promise<never>((_, reject) => {
    child.once('exit', (code) => reject(new Error(`${child.spawnfile} ended with ${code}`)));
  });
  // Its end after the tests is awaited elsewhere.
  ended.catch(() => {});
  return ended;
}
