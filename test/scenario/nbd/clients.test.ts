import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fuzzRounds, fuzzSeed } from '../../fuzz/fuzz.ts';
import { MemoryDevice } from '../../guest/nbd/memory-device.ts';
import { RunningServer } from '../../guest/nbd/running-server.ts';
import { nbdShell, PYTHON, program } from './program.ts';

const ODD_BYTES = 33 * 1024 * 1024 + 511;

describe('NBD server and real clients', () => {
  let running: RunningServer;
  let folder: string;
  let image: string;
  const uri = (name: string) => `nbd+unix:///${name}?socket=${running.path}`;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'postern-nbd-clients-'));
    image = join(folder, 'image');
    // Data, a hole, data, and an odd end.
    const data = randomBytes(9 * 1024 * 1024);
    await writeFile(
      image,
      Buffer.concat([data, Buffer.alloc(16 * 1024 * 1024), data.subarray(0, 1_000_001)]),
    );
    await truncate(image, ODD_BYTES);
    running = await RunningServer.start([
      { name: 'odd', description: 'of an odd size', device: new MemoryDevice(ODD_BYTES) },
      { name: 'even', device: new MemoryDevice(64 * 1024 * 1024) },
      { name: 'locked', device: new MemoryDevice(1024 * 1024, { readOnly: true }) },
      { name: 'fsx', device: new MemoryDevice(1_300_001) },
    ]);
  });
  after(async () => {
    await running.close();
    await rm(folder, { recursive: true });
  });

  it('nbdinfo lists every export with what it can do', async () => {
    const listed = JSON.parse(await program('nbdinfo', '--list', '--json', running.uri)) as {
      exports: Record<string, unknown>[];
    };
    assert.deepEqual(
      listed.exports.map((one) => [one['export-name'], one['export-size'], one['is_read_only']]),
      [
        ['odd', ODD_BYTES, false],
        ['even', 64 * 1024 * 1024, false],
        ['locked', 1024 * 1024, true],
        ['fsx', 1_300_001, false],
      ],
    );
    const [odd] = listed.exports;
    assert.equal(odd?.['description'], 'of an odd size');
    assert.deepEqual(odd?.['contexts'], ['base:allocation']);
    for (const can of ['cache', 'df', 'fast_zero', 'flush', 'fua', 'multi_conn', 'trim', 'zero']) {
      assert.equal(odd?.[`can_${can}`], true, can);
    }
  });

  it('nbdcopy brings an image in and out again, over four connections', async () => {
    const back = join(folder, 'back');
    await writeFile(back, '');
    await truncate(back, ODD_BYTES);
    await program('nbdcopy', '--connections=4', '--flush', image, uri('odd'));
    await program('nbdcopy', '--connections=4', uri('odd'), back);
    assert.equal(await digest(back), await digest(image));
    const map = JSON.parse(await program('nbdinfo', '--map', '--json', uri('odd'))) as { type: number }[];
    assert.deepEqual(
      map.map(({ type }) => type),
      [0, 3, 0, 3],
    );
  });

  it('qemu-img converts and compares, and sees the same holes', async () => {
    await program('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', image, uri('even'));
    const compared = await program('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, uri('even'));
    assert.match(compared, /Images are identical/);
    const map = await program('qemu-img', 'map', '-f', 'raw', '--output=json', uri('even'));
    const data = (JSON.parse(map) as { data: boolean }[]).map((extent) => extent.data);
    assert.deepEqual(data, [true, false, true, false]);
  });

  it('qemu-io writes, zeroes, discards and verifies patterns', async () => {
    const steps = [
      'write -P 0x11 0 1M',
      'write -f -P 0x22 1M 64k',
      'write -z 512k 128k',
      'write -z -u 700k 100k',
      'discard 900k 64k',
      'flush',
      'read -P 0x11 0 512k',
      'read -P 0 512k 128k',
      'read -P 0x22 1M 64k',
      'aio_write -P 0x33 2M 1M',
      'aio_flush',
      'read -P 0x33 2M 1M',
    ];
    const output = await program(
      'qemu-io',
      '-f',
      'raw',
      ...steps.flatMap((step) => ['-c', step]),
      uri('even'),
    );
    assert.doesNotMatch(output, /verification failed|error/i);
  });

  it('libnbd gets chunks, extents, and errors in the protocol’s words', async () => {
    const script = `
import errno
h.set_strict_mode(0)
h.zero(1 << 20, 0)
h.pwrite(b"x" * 65536, 131072, nbd.CMD_FLAG_FUA)
chunks = []
h.pread_structured(1 << 20, 0, lambda data, offset, status, error: chunks.append((offset, len(data), status)) or 0)
assert sorted(chunks) == [(0, 131072, 2), (131072, 65536, 1), (196608, (1 << 20) - 196608, 2)], chunks
one = []
h.pread_structured(1 << 20, 0, lambda data, offset, status, error: one.append(len(data)) or 0, nbd.CMD_FLAG_DF)
assert one == [1 << 20], one
first = []
keep = lambda context, offset, extents, error: first.extend(extents) or 0
h.block_status(1 << 20, 0, keep, nbd.CMD_FLAG_REQ_ONE)
assert first == [131072, 3], first
h.cache(4096, 0)
h.trim(65536, 131072)
h.zero(65536, 0, nbd.CMD_FLAG_FAST_ZERO)
def fails(number, call, *args):
    try:
        call(*args)
    except nbd.Error as error:
        assert error.errnum == number, (error.errnum, number)
    else:
        raise Exception("no error")
fails(errno.ENOTSUP, h.zero, 65536, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
fails(errno.EINVAL, h.pread, 512, h.get_size())
fails(errno.ENOSPC, h.pwrite, b"y" * 512, h.get_size() - 1)
assert h.pread(5, 131072) == bytes(5)
h.shutdown()
`;
    await nbdShell(uri('even'), script);
    await nbdShell(
      uri('locked'),
      'h.set_strict_mode(0)\ntry:\n  h.pwrite(b"x", 0)\n  raise Exception("wrote")\nexcept nbd.Error as error:\n  assert error.errnum == 1',
    );
    await assert.rejects(nbdShell(uri('nothing'), ''), /no export named .nothing/);
  });

  it('fio verifies what it wrote at random, in blocks of many sizes', async () => {
    await program(
      'fio',
      ...['--name=verify', '--ioengine=nbd', `--uri=${uri('even')}`, '--rw=randwrite', '--size=32m'],
      ...['--bsrange=512-128k', '--bs_unaligned', '--iodepth=32', '--verify=crc32c', '--fsync=64'],
      ...['--io_size=16m', `--output=${join(folder, 'fio')}`, `--aux-path=${folder}`],
    );
    assert.match(await readFile(join(folder, 'fio'), 'utf8'), /err= 0/);
  });

  it('libnbd’s random operations equal a model', async (t) => {
    const seed = fuzzSeed();
    t.diagnostic(`SEED=${seed}`);
    const script = join(import.meta.dirname, 'fsx.py');
    await program(PYTHON, script, uri('fsx'), String(seed), String(fuzzRounds(1500)));
  });
});

async function digest(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}
