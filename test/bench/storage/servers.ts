import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createBucket } from '../../s3/buckets.ts';
import type { Radosgw } from '../../s3/radosgw.ts';
import { VolumeWorld } from '../../scenario/volumes/world.ts';

/** nbdkit's S3 plugin cuts the disk into objects of this size (its manual's example). */
const S3_OBJECT_BYTES = 64 * 1024;

export interface StorageServer {
  readonly name: string;
  readonly socket: string;
  stop(): Promise<void>;
}

/** Everything there is: parent, relay, guest, NBD; anchored in a file, flushes answered when anchored. */
export async function startPostern(name: string, sizeBytes: number, store?: object): Promise<StorageServer> {
  const world = await VolumeWorld.make(store);
  await world.startParent();
  const { code, stderr } = await world.volume('create', 'data', '--size', String(sizeBytes));
  if (code !== 0) throw new Error(stderr);
  await world.startGuest();
  return { name, socket: world.nbdSocket, stop: () => world.remove() };
}

export async function posternOnS3(
  sizeBytes: number,
  server: Radosgw,
  folder: string,
): Promise<StorageServer> {
  const secretAccessKeyFile = join(folder, 's3.secret');
  await writeFile(secretAccessKeyFile, server.secretAccessKey, { mode: 0o600 });
  const s3 = {
    bucket: await createBucket(server),
    region: 'default',
    endpoint: server.endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId: server.accessKeyId, secretAccessKeyFile },
  };
  return startPostern('postern, radosgw', sizeBytes, { s3 });
}

export async function nbdkitOnS3(sizeBytes: number, server: Radosgw, folder: string): Promise<StorageServer> {
  const settings = {
    'access-key': server.accessKeyId,
    'secret-key': server.secretAccessKey,
    'endpoint-url': server.endpoint,
    bucket: await createBucket(server),
    key: 'disk',
    size: String(sizeBytes),
    'object-size': String(S3_OBJECT_BYTES),
  };
  const words = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
  return nbdkit('nbdkit S3, radosgw', join(folder, 'nbdkit-s3.sock'), ['S3', ...words]);
}

export function nbdkitMemory(sizeBytes: number, folder: string): Promise<StorageServer> {
  return nbdkit('nbdkit memory', join(folder, 'nbdkit-memory.sock'), ['memory', String(sizeBytes)]);
}

async function nbdkit(name: string, socket: string, plugin: readonly string[]): Promise<StorageServer> {
  const words = ['--foreground', '--unix', socket, ...plugin];
  const child = spawn('nbdkit', words, { stdio: ['ignore', 'ignore', 'inherit'] });
  await listening(name, socket, child);
  const stop = async (): Promise<void> => {
    const exited = once(child, 'exit');
    if (child.exitCode !== null) return;
    child.kill('SIGTERM');
    await exited;
  };
  return { name, socket, stop };
}

async function listening(name: string, socket: string, child: ChildProcess): Promise<void> {
  const there = () =>
    access(socket).then(
      () => true,
      () => false,
    );
  while (!(await there())) {
    if (child.exitCode !== null) throw new Error(`${name} did not start`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
