# Random operations through libnbd on two connections, against a model in memory: python3 fsx.py URI SEED OPERATIONS
import random
import sys

import nbd

uri, seed, operations = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
handles = []
for _ in range(2):
    handle = nbd.NBD()
    handle.add_meta_context("base:allocation")
    handle.connect_uri(uri)
    handles.append(handle)
size = handles[0].get_size()
LARGEST = 32 << 20
model = bytearray()
while len(model) < size:
    model += handles[0].pread(min(LARGEST, size - len(model)), len(model))


def span():
    length = min(size, rng.choice([1, 511, 512, 4096, 4097, 65536, 100_000, 300_000]))
    length = rng.randint(1, length)
    return rng.randint(0, size - length), length


def check(handle, offset, length):
    got = handle.pread(length, offset)
    if got != model[offset : offset + length]:
        bad = next(i for i in range(length) if got[i] != model[offset + i])
        sys.exit(f"seed {seed}: byte {offset + bad} differs in a read of {length} at {offset}")


def check_extents(handle, offset, length):
    extents = []
    handle.block_status(length, offset, lambda context, at, entries, error: extents.extend(entries) or 0)
    at = offset
    for count, flags in zip(extents[0::2], extents[1::2]):
        end = min(at + count, offset + length)
        if flags & nbd.STATE_ZERO and any(model[at:end]):
            sys.exit(f"seed {seed}: data in the zero extent {at}..{end}")
        at = end


for _ in range(operations):
    handle = rng.choice(handles)
    offset, length = span()
    fua = rng.choice([0, 0, nbd.CMD_FLAG_FUA])
    what = rng.randrange(8)
    if what < 3:
        check(handle, offset, length)
    elif what < 5:
        data = rng.randbytes(length)
        handle.pwrite(data, offset, fua)
        model[offset : offset + length] = data
    elif what == 5:
        handle.zero(length, offset, fua | rng.choice([0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO]))
        model[offset : offset + length] = bytes(length)
    elif what == 6:
        # The protocol leaves open what a trimmed range reads as; this server says zeros.
        handle.trim(length, offset, fua)
        model[offset : offset + length] = bytes(length)
    else:
        handle.flush()
        check_extents(handle, offset, length)
for handle in handles:
    for at in range(0, size, LARGEST):
        check(handle, at, min(LARGEST, size - at))
    handle.shutdown()
