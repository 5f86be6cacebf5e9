import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createVolume } from '../../../guest/volume/create.ts';
import { createBucket, s3Options } from '../../s3/buckets.ts';
import type { Radosgw } from '../../s3/radosgw.ts';
import { program } from '../../scenario/nbd/program.ts';
import { openPlace } from '../../scenario/storage/served-volume.ts';
import { ServingProcess, VolumeProcess } from '../../scenario/storage/volume-process.ts';

/** Objects of the others: as large as one frame of ours. */
const OBJECT_BYTES = 64 * 1024;
const POLL_MS = 20;
const POLLS = 1500;
const S3_PARENT = fileURLToPath(new URL('./s3-parent.ts', import.meta.url));

/** Requests at the store, since the start. */
export interface Requests {
  readonly puts: number;
  readonly gets: number;
}

/** A block device over NBD. */
export interface Contestant {
  readonly name: string;
  readonly socket: string;
  /** Of all that works for it, the store itself aside; ours are the guest's and the parent's. */
  readonly pids: readonly number[];
  requests(): Promise<Requests>;
  stop(): Promise<void>;
}

export interface Setting {
  readonly folder: string;
  readonly server: Radosgw;
  readonly sizeBytes: number;
}

/** Our parent's relay before a new, empty store. `folder` is made. */
export async function startParent(
  { folder, server }: Setting,
  kind: 's3' | 'directory',
): Promise<ServingProcess> {
  await mkdir(join(folder, 'objects'), { recursive: true });
  await mkdir(join(folder, 'anchor'));
  const socket = join(folder, 'parent.sock');
  if (kind === 'directory') return ServingProcess.directoryParent(join(folder, 'objects'), socket);
  const options = s3Options(server, await createBucket(server));
  return ServingProcess.script(S3_PARENT, [socket, JSON.stringify(options)]);
}

export async function createIn({ folder, sizeBytes }: Setting): Promise<void> {
  const { access, relay } = openPlace(placeIn(folder));
  await createVolume({ ...access, sizeBytes, mode: { kind: 'strict' } });
  relay.close();
}

export function attachIn(folder: string): Promise<VolumeProcess> {
  return VolumeProcess.start(placeIn(folder), join(folder, 'nbd.sock'));
}

function placeIn(folder: string) {
  return { parentSocket: join(folder, 'parent.sock'), anchorFolder: join(folder, 'anchor') };
}

export async function startPostern(setting: Setting, kind: 's3' | 'directory'): Promise<Contestant> {
  const folder = join(setting.folder, `postern-${kind}`);
  const parent = await startParent({ ...setting, folder }, kind);
  await createIn({ ...setting, folder });
  const guest = await attachIn(folder);
  return {
    name: `postern, ${kind === 's3' ? 'radosgw' : 'directory'}`,
    socket: guest.nbdSocket,
    pids: [guest, parent].map(({ child }) => child.pid ?? 0),
    requests: () => guest.counts(),
    async stop() {
      await guest.detach();
      await parent.stop();
    },
  };
}

export function startMemory({ folder, sizeBytes }: Setting): Promise<Contestant> {
  return nbdkit('nbdkit memory', join(folder, 'memory.sock'), ['memory', String(sizeBytes)]);
}

export async function startNbdkitS3({ folder, server, sizeBytes }: Setting): Promise<Contestant> {
  const where = [`endpoint-url=${server.endpoint}`, `bucket=${await createBucket(server)}`, 'key=disk'];
  const keys = [`access-key=${server.accessKeyId}`, `secret-key=${server.secretAccessKey}`];
  const sizes = [`size=${sizeBytes}`, `object-size=${OBJECT_BYTES}`];
  // The plugin announces its objects' size as the only one, and can do others: without this fio's 4 KiB are refused.
  const blocks = ['blocksize-minimum=1', 'blocksize-preferred=4096', 'blocksize-maximum=32M'];
  const options = ['--filter=blocksize-policy', 'S3', ...where, ...keys, ...sizes, ...blocks];
  return nbdkit('nbdkit S3', join(folder, 'nbdkit-s3.sock'), options, server);
}

export async function startS3backer({ folder, server, sizeBytes }: Setting): Promise<Contestant> {
  const mountPoint = join(folder, 's3backer');
  await mkdir(mountPoint);
  const accessFile = join(folder, 's3backer.access');
  await writeFile(accessFile, `${server.accessKeyId}:${server.secretAccessKey}\n`, { mode: 0o600 });
  // No --region: naming one turns virtual hosts on, whose names nobody here resolves.
  const options = [`--accessFile=${accessFile}`, `--baseURL=${server.endpoint}/`];
  const sizes = [`--size=${sizeBytes}`, `--blockSize=${OBJECT_BYTES}`];
  const args = ['-f', ...options, ...sizes, '--quiet', await createBucket(server), mountPoint];
  const backer = spawn('s3backer', args, { stdio: ['ignore', 'ignore', 'ignore'] });
  await answered(() => program('stat', join(mountPoint, 'file')), backer);
  const file = ['file', join(mountPoint, 'file')];
  const served = await nbdkit('s3backer', join(folder, 's3backer.sock'), file, server);
  return {
    ...served,
    pids: [...served.pids, backer.pid ?? 0],
    async stop() {
      await served.stop();
      const ended = once(backer, 'exit');
      await program('umount', mountPoint);
      await ended;
    },
  };
}

async function nbdkit(
  name: string,
  socket: string,
  args: readonly string[],
  server?: Radosgw,
): Promise<Contestant> {
  const child = spawn('nbdkit', ['--foreground', '--unix', socket, ...args], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const uri = `nbd+unix:///?socket=${socket}`;
  await answered(() => program('nbdinfo', '--size', uri), child);
  return {
    name,
    socket,
    pids: [child.pid ?? 0],
    requests: async () => server?.requests() ?? { puts: 0, gets: 0 },
    async stop() {
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await ended;
    },
  };
}

async function answered(ask: () => Promise<unknown>, by: ChildProcess): Promise<void> {
  for (let poll = 1; ; poll += 1) {
    try {
      await ask();
      return;
    } catch (error) {
      if (poll === POLLS || by.exitCode !== null) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
