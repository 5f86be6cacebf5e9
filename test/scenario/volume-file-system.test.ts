import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { checkVolume } from '../../guest/volume/check.ts';
import { createVolume } from '../../guest/volume/create.ts';
import { inspectVolume } from '../../guest/volume/inspect.ts';
import { volumeStatus } from '../../guest/volume/status.ts';
import { FILE_SYSTEMS } from './nbd/file-system.ts';
import { PYTHON, program } from './nbd/program.ts';
import { LoopDevice } from './storage/loop-device.ts';
import { openPlace, type VolumePlace } from './storage/served-volume.ts';
import { ServingProcess, VolumeProcess } from './storage/volume-process.ts';

const MIB = 1024 * 1024;
const SIZE_BYTES = 512 * MIB;
/** Random data that build-tree.sh writes, deletes and trims; what is left is about half of that, more or less with the seed. */
const GONE_BYTES = 96 * MIB;
const MARKER = 'plaintext-that-must-not-be-seen';
const SEED = Number(process.env['SEED'] ?? Date.now() & 0x7fffffff);
const OPERATIONS = process.env['SLOW'] === '1' ? 20_000 : 600;
const REPOSITORY = join(import.meta.dirname, '../..');
const STORAGE = join(import.meta.dirname, 'storage');

for (const kind of FILE_SYSTEMS) {
  describe(`${kind.name} on a volume in a directory behind the relay`, () => {
    let folder = '';
    let parent: ServingProcess | undefined;
    let guest: VolumeProcess | undefined;
    let device: LoopDevice | undefined;
    let place: VolumePlace;
    let hashes = '';

    before(async () => {
      folder = await mkdtemp(join(tmpdir(), 'postern-volume-fs-'));
      for (const name of ['objects', 'anchor', 'mounted']) await mkdir(join(folder, name));
      place = { parentSocket: join(folder, 'parent.sock'), anchorFolder: join(folder, 'anchor') };
      parent = await ServingProcess.directoryParent(join(folder, 'objects'), place.parentSocket);
      const { access, relay } = openPlace(place);
      await createVolume({ ...access, sizeBytes: SIZE_BYTES, mode: { kind: 'strict' } });
      relay.close();
    });
    after(async () => {
      // Whatever a failed test left behind.
      await device?.detach().catch(() => undefined);
      await guest?.stop('SIGKILL');
      await parent?.stop('SIGKILL');
      await rm(folder, { recursive: true, force: true });
    });

    async function attach(): Promise<LoopDevice> {
      guest = await VolumeProcess.start(place, join(folder, 'nbd.sock'));
      device = await LoopDevice.attach(guest.nbdSocket, join(folder, 'fuse'));
      return device;
    }
    async function detach(): Promise<void> {
      await device?.detach();
      device = undefined;
      await guest?.detach();
      guest = undefined;
    }
    async function mounted(work: (mountPoint: string) => Promise<void>): Promise<void> {
      const mountPoint = join(folder, 'mounted');
      await program('mount', device?.path ?? '', mountPoint);
      try {
        await work(mountPoint);
      } finally {
        await program('umount', mountPoint);
      }
    }

    it('takes a source tree and its build, holes, renames, deletions and a trim', async () => {
      const { path } = await attach();
      await kind.make(path);
      await mounted(async (mountPoint) => {
        const script = `cd ${mountPoint} && exec sh ${STORAGE}/build-tree.sh ${REPOSITORY}`;
        await program('env', `POSTERN_MARKER=${MARKER}`, 'sh', '-ec', script);
      });
    });

    it(`does random operations as a model does them (SEED=${SEED})`, async () => {
      await mounted(async (mountPoint) => {
        const files = join(mountPoint, 'fsx');
        await mkdir(files);
        await program(PYTHON, join(STORAGE, 'fsx-files.py'), files, String(SEED), String(OPERATIONS));
        hashes = await hashesOf(mountPoint);
        await program('fstrim', mountPoint);
      });
      await detach();
    });

    it('holds the same after the next attach, and is whole', async () => {
      const { path } = await attach();
      await kind.checkDevice(path);
      await mounted(async (mountPoint) => {
        assert.equal(await hashesOf(mountPoint), hashes);
        await kind.checkMounted(mountPoint);
      });
      await kind.checkDevice(path);
      await detach();
    });

    it('left no object that is broken, none of what was trimmed, and no plaintext', async () => {
      const { access, relay } = openPlace(place);
      const inspected = await inspectVolume(access);
      const { liveBytes, attached } = await volumeStatus(inspected);
      const { problems } = await checkVolume(inspected);
      relay.close();
      assert.equal(attached, false);
      assert.deepEqual(problems, []);
      assert.ok(liveBytes < GONE_BYTES, `${liveBytes} bytes are alive`);
      const text = Buffer.from(MARKER);
      let objectBytes = 0;
      for await (const bytes of objectsOf(join(folder, 'objects'))) {
        objectBytes += bytes.length;
        assert.equal(bytes.indexOf(text), -1);
        assert.equal(bytes.indexOf('import type'), -1);
      }
      assert.ok(objectBytes >= liveBytes);
    });
  });
}

/** Of every file, by its name, with the links and what they say. */
async function hashesOf(mountPoint: string): Promise<string> {
  const files = 'find . -path ./lost+found -prune -o -type f -print0 | sort -z | xargs -0 sha256sum';
  const links = 'find . -type l -printf "%p %l\\n" | sort';
  return program('sh', '-ec', `cd ${mountPoint}; ${files}; ${links}`);
}

async function* objectsOf(folder: string): AsyncGenerator<Buffer> {
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    assert.ok(!entry.name.includes(MARKER));
    if (entry.isFile()) yield readFile(join(entry.parentPath, entry.name));
  }
}
