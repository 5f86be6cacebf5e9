import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { checkVolume } from '../../guest/volume/check.ts';
import { createVolume } from '../../guest/volume/create.ts';
import { inspectVolume } from '../../guest/volume/inspect.ts';
import { fuzzRounds, fuzzSeed } from '../fuzz/fuzz.ts';
import { nbdShell, PYTHON, program } from './nbd/program.ts';
import { openPlace, type VolumePlace } from './storage/served-volume.ts';
import { ServingProcess, VolumeProcess } from './storage/volume-process.ts';

const MIB = 1024 * 1024;
/** Whole sectors, as qemu wants, and no whole blocks. */
const SIZE_BYTES = 80 * MIB + 1536;

describe('a volume and real clients, from NBD to the objects on the parent', () => {
  let folder = '';
  let image = '';
  let place: VolumePlace;
  let parent: ServingProcess | undefined;
  let guest: VolumeProcess | undefined;
  let uri = '';

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'postern-volume-clients-'));
    for (const name of ['objects', 'anchor']) await mkdir(join(folder, name));
    place = { parentSocket: join(folder, 'parent.sock'), anchorFolder: join(folder, 'anchor') };
    uri = `nbd+unix:///?socket=${join(folder, 'nbd.sock')}`;
    image = join(folder, 'image');
    // Data, a hole, data, and a hole to the end.
    const data = randomBytes(9 * MIB);
    await writeFile(image, Buffer.concat([data, Buffer.alloc(16 * MIB), data.subarray(0, 1_000_001)]));
    await truncate(image, SIZE_BYTES);
    parent = await ServingProcess.directoryParent(join(folder, 'objects'), place.parentSocket);
    const { access, relay } = openPlace(place);
    await createVolume({ ...access, sizeBytes: SIZE_BYTES, mode: { kind: 'strict' } });
    relay.close();
    guest = await VolumeProcess.start(place, join(folder, 'nbd.sock'));
  });
  after(async () => {
    await guest?.stop('SIGKILL');
    await parent?.stop('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  });

  async function attachAgain(): Promise<void> {
    await guest?.detach();
    guest = await VolumeProcess.start(place, join(folder, 'nbd.sock'));
  }
  async function kindsOfExtents(): Promise<number[]> {
    const map = JSON.parse(await program('nbdinfo', '--map', '--json', uri)) as { type: number }[];
    return map.map(({ type }) => type);
  }
  async function copiedOut(): Promise<string> {
    const back = join(folder, 'back');
    await writeFile(back, '');
    await truncate(back, SIZE_BYTES);
    await program('nbdcopy', '--connections=4', uri, back);
    return digest(back);
  }

  it('is a hole when it is new, and says what it can do', async () => {
    assert.deepEqual(await kindsOfExtents(), [3]);
    const { exports: found } = JSON.parse(await program('nbdinfo', '--json', uri)) as {
      exports: Record<string, unknown>[];
    };
    assert.equal(found[0]?.['export-size'], SIZE_BYTES);
    for (const can of ['cache', 'df', 'fast_zero', 'flush', 'fua', 'multi_conn', 'trim', 'zero']) {
      assert.equal(found[0]?.[`can_${can}`], true, can);
    }
  });

  it('nbdcopy and qemu bring an image in, and find it, with its holes, after the next attach', async () => {
    await program('nbdcopy', '--connections=4', '--flush', image, uri);
    const expected = await digest(image);
    assert.equal(await copiedOut(), expected);
    await attachAgain();
    assert.equal(await copiedOut(), expected);
    assert.deepEqual(await kindsOfExtents(), [0, 3, 0, 3]);
    const compared = await program('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, uri);
    assert.match(compared, /Images are identical/);
    const map = await program('qemu-img', 'map', '-f', 'raw', '--output=json', uri);
    const data = (JSON.parse(map) as { data: boolean }[]).map((extent) => extent.data);
    assert.deepEqual(data, [true, false, true, false]);
  });

  it('libnbd writes 32 MiB at once, zeroes with and without a hole, trims, and flushes across connections', async () => {
    const script = `
import os
big = os.urandom(32 << 20)
h.pwrite(big, 4097, nbd.CMD_FLAG_FUA)
assert h.pread(32 << 20, 4097) == big
def extents(offset, length):
    found = []
    h.block_status(length, offset, lambda context, at, entries, error: found.extend(entries) or 0)
    return found
h.zero(1 << 20, 8 << 20, nbd.CMD_FLAG_NO_HOLE)
assert extents(8 << 20, 1 << 20)[1] & 1 == 0
h.zero(1 << 20, 10 << 20)
assert extents(10 << 20, 1 << 20) == [1 << 20, 3]
h.trim(1 << 20, 12 << 20, nbd.CMD_FLAG_FUA)
assert extents(12 << 20, 1 << 20) == [1 << 20, 3]
for at in (8, 10, 12):
    assert h.pread(1 << 20, at << 20) == bytes(1 << 20)
h.cache(1 << 20, 40 << 20)
h.pwrite(b"across", 50 << 20)
other = nbd.NBD()
other.connect_uri(${JSON.stringify(uri)})
assert other.can_multi_conn()
assert other.pread(6, 50 << 20) == b"across"
other.flush()
other.shutdown()
h.shutdown()
`;
    await nbdShell(uri, script);
    // What one connection wrote and another flushed outlives kill -9.
    await guest?.stop('SIGKILL');
    guest = await VolumeProcess.start(place, join(folder, 'nbd.sock'), 'takeover');
    await nbdShell(uri, 'assert h.pread(6, 50 << 20) == b"across"\nh.shutdown()');
  });

  it('fio verifies what it wrote at random, in blocks of many sizes', async () => {
    await program(
      'fio',
      ...['--name=verify', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--size=64m'],
      ...['--bsrange=512-128k', '--bs_unaligned', '--iodepth=32', '--verify=crc32c', '--fsync=64'],
      ...['--io_size=16m', `--output=${join(folder, 'fio')}`, `--aux-path=${folder}`],
    );
    assert.match(await readFile(join(folder, 'fio'), 'utf8'), /err= 0/);
  });

  it('libnbd’s random operations equal a model, and everything stored verifies', async (t) => {
    const seed = fuzzSeed();
    t.diagnostic(`SEED=${seed}`);
    const script = join(import.meta.dirname, 'nbd/fsx.py');
    await program(PYTHON, script, uri, String(seed), String(fuzzRounds(300)));
    await guest?.detach();
    guest = undefined;
    const { access, relay } = openPlace(place);
    const { problems } = await checkVolume(await inspectVolume(access));
    relay.close();
    assert.deepEqual(problems, []);
  });
});

async function digest(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}
