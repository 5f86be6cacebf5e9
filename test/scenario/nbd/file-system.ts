import assert from 'node:assert/strict';
import { cp, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { program } from './program.ts';

/** What is copied onto the file system: the program's own sources, from the repository's root. */
const TREES = ['shared', 'guest', 'parent'];

export interface FileSystem {
  readonly name: string;
  make(device: string): Promise<string>;
  /** Of the mounted file system, and of the device that is not mounted any more: each rejects on a fault. */
  checkMounted(mountPoint: string): Promise<unknown>;
  checkDevice(device: string): Promise<unknown>;
  /** Takes all of the device, while it is mounted. */
  grow(device: string, mountPoint: string): Promise<unknown>;
}

export const FILE_SYSTEMS: readonly FileSystem[] = [
  {
    name: 'btrfs',
    make: (device) => program('mkfs.btrfs', '-q', '-f', device),
    async checkMounted(mountPoint) {
      const scrubbed = await program('btrfs', 'scrub', 'start', '-B', mountPoint);
      assert.match(scrubbed, /no errors found/);
    },
    checkDevice: (device) => program('btrfs', 'check', '--readonly', device),
    grow: (_device, mountPoint) => program('btrfs', 'filesystem', 'resize', 'max', mountPoint),
  },
  {
    name: 'ext4',
    make: (device) => program('mkfs.ext4', '-q', '-F', device),
    checkMounted: () => Promise.resolve(),
    checkDevice: (device) => program('e2fsck', '-f', '-n', device),
    grow: (device) => program('resize2fs', device),
  },
];

/**
 * Makes the file system, builds a tree on it with rewrites, deletions and trims between, and compares what a second
 * mount reads. `mountPoint` is an empty folder.
 */
export async function exerciseFileSystem(
  kind: FileSystem,
  device: string,
  mountPoint: string,
): Promise<void> {
  await kind.make(device);
  await mounted(device, mountPoint, async () => {
    for (const tree of TREES) await cp(tree, join(mountPoint, tree), { recursive: true });
    await mkdir(join(mountPoint, 'gone'));
    const steps = [
      'dd if=/dev/urandom of=gone/noise bs=1M count=8 conv=fsync status=none',
      'cp gone/noise kept && dd if=/dev/urandom of=kept bs=4097 seek=3 count=50 conv=notrunc,fsync status=none',
      'sha256sum kept >kept.sha256 && sync',
      'rm -r gone && fstrim .',
      'for n in 1 2 3 4 5 6 7 8; do echo $n >>journal && sync journal; done',
    ];
    await program('sh', '-ec', `cd ${mountPoint}\n${steps.join('\n')}`);
  });
  await kind.checkDevice(device);
  await mounted(device, mountPoint, async () => {
    for (const tree of TREES) await program('diff', '-r', tree, join(mountPoint, tree));
    await program('sh', '-ec', `cd ${mountPoint} && sha256sum -c kept.sha256 && [ $(wc -l <journal) = 8 ]`);
    await kind.checkMounted(mountPoint);
  });
}

async function mounted(device: string, mountPoint: string, work: () => Promise<void>): Promise<void> {
  await program('mount', device, mountPoint);
  try {
    await work();
  } finally {
    await program('umount', mountPoint);
  }
}
