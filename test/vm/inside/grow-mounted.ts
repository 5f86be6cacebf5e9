import assert from 'node:assert/strict';
import { statfs } from 'node:fs/promises';
import type { FileSystem } from '../../scenario/nbd/file-system.ts';
import { program } from '../../scenario/nbd/program.ts';

const MIB = 1024 * 1024;
/** Of the 64 MiB that the device grows by, the file system takes some for itself. */
const GROWTH_MIN_BYTES = 56 * MIB;
/** Takes all blocks and writes none, down to the last MiB: what is written afterwards has room in new space alone. */
const FILL = `
count=0
for size in 64M 8M 1M; do
  while fallocate -l $size fill.$count 2>/dev/null; do count=$((count + 1)); done
done`;
const WRITE = 'dd if=/dev/urandom of=grown bs=1M count=16 conv=fsync status=none';

/**
 * Fills the file system of `exerciseFileSystem`, has the device grow under it by `growDevice`, grows it while it is mounted,
 * writes where nothing was, and checks all of it after another mount.
 */
export async function growMounted(
  kind: FileSystem,
  device: string,
  mountPoint: string,
  growDevice: () => Promise<void>,
): Promise<void> {
  const inside = (script: string) => program('sh', '-ec', `cd ${mountPoint}\n${script}`);
  await program('mount', device, mountPoint);
  try {
    await inside(FILL);
    await assert.rejects(inside(WRITE), /No space left on device/);
    const before = await sizeOf(mountPoint);
    await growDevice();
    await kind.grow(device, mountPoint);
    const after = await sizeOf(mountPoint);
    assert.ok(after - before >= GROWTH_MIN_BYTES, `from ${before} to ${after} bytes`);
    await inside(`${WRITE} && sha256sum grown >grown.sha256 && sync`);
  } finally {
    await program('umount', mountPoint);
  }
  await kind.checkDevice(device);
  await program('mount', device, mountPoint);
  try {
    await program('diff', '-r', 'shared', `${mountPoint}/shared`);
    await inside('sha256sum -c kept.sha256 grown.sha256 && rm fill.*');
  } finally {
    await program('umount', mountPoint);
  }
}

async function sizeOf(mountPoint: string): Promise<number> {
  const { bsize, blocks } = await statfs(mountPoint);
  return bsize * blocks;
}
