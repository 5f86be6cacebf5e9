# Random operations on files, against a model in memory: python3 fsx-files.py FOLDER SEED OPERATIONS
import ctypes
import mmap
import os
import random
import sys

folder, seed, operations = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
libc = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
FILE_MAX_BYTES = 1 << 20
FILES_MAX = 12
model = {}
names = 0


def path(name):
    return os.path.join(folder, name)


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def span(limit):
    length = rng.randint(1, min(limit, rng.choice([1, 511, 4096, 4097, 65536, 300_000])))
    return rng.randint(0, limit - length), length


def check(name, offset, length):
    with open(path(name), "rb", buffering=0) as file:
        if rng.randrange(2):
            # What is clean leaves the page cache: the read goes to the device.
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        got = os.pread(file.fileno(), length, offset)
    if got != model[name][offset : offset + length]:
        sys.exit(f"seed {seed}: {name} differs in a read of {length} at {offset}")


def write(name, fd, data):
    offset, length = span(FILE_MAX_BYTES)
    chunk = rng.randbytes(length)
    os.pwrite(fd, chunk, offset)
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + length] = chunk


def punch(name, fd, data):
    offset, length = span(FILE_MAX_BYTES)
    fallocate(fd, KEEP_SIZE | rng.choice([PUNCH_HOLE, PUNCH_HOLE, ZERO_RANGE]), offset, length)
    end = min(len(data), offset + length)
    if end > offset:
        data[offset:end] = bytes(end - offset)


def truncate(name, fd, data):
    size = rng.randint(0, FILE_MAX_BYTES)
    os.ftruncate(fd, size)
    del data[size:]
    data.extend(bytes(size - len(data)))


def allocate(name, fd, data):
    offset, length = span(FILE_MAX_BYTES)
    os.posix_fallocate(fd, offset, length)
    data.extend(bytes(max(0, offset + length - len(data))))


def map_and_write(name, fd, data):
    if not data:
        return
    offset, length = span(len(data))
    chunk = rng.randbytes(length)
    with mmap.mmap(fd, len(data)) as mapped:
        mapped[offset : offset + length] = chunk
        mapped.flush()
    data[offset : offset + length] = chunk


CHANGES = [write, write, write, punch, punch, truncate, allocate, map_and_write]
for _ in range(operations):
    what = rng.randrange(20)
    if not model or (what == 0 and len(model) < FILES_MAX):
        names += 1
        model[f"file-{names}"] = bytearray()
        open(path(f"file-{names}"), "xb").close()
        continue
    name = rng.choice(sorted(model))
    if what == 1:
        target = rng.choice([*sorted(model), f"renamed-{names}"])
        os.rename(path(name), path(target))
        model[target] = model.pop(name)
    elif what == 2:
        os.unlink(path(name))
        del model[name]
    elif what < 6:
        check(name, 0, len(model[name]) + 1)
    else:
        fd = os.open(path(name), os.O_RDWR)
        rng.choice(CHANGES)(name, fd, model[name])
        if rng.randrange(4) == 0:
            os.fsync(fd)
        os.close(fd)
if sorted(os.listdir(folder)) != sorted(model):
    sys.exit(f"seed {seed}: the folder holds {os.listdir(folder)}, not {sorted(model)}")
for name in sorted(model):
    check(name, 0, len(model[name]) + 1)
