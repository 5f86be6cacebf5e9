import { detachHandle } from '../flow/pump.ts';
import type { PipeHandle } from '../transport/native/handle.ts';
import { streamOver } from '../transport/stream.ts';
import type { Stream } from '../transport/transport.ts';

/**
 * One system call takes this much. libuv reads up to 32 times in a turn, so others wait for 2 MiB at most.
 */
const READ_BYTES = 64 * 1024;

/** For all object streams of the process: what comes is copied to where it belongs before the next read. */
const slab = Buffer.allocUnsafeSlow(READ_BYTES);

/**
 * Takes the stream over into one that reads without an allocation for each read: those would make V8 collect its whole
 * heap for every few large objects. `onBytes` gets each piece in turn, valid only during the call; what was read
 * before comes first. The returned stream reads once it is resumed.
 */
export function receiveBytes(origin: Stream, onBytes: (piece: Buffer) => void): Stream {
  // Closed already: there is nothing to take over, and nothing will come.
  if (origin.destroyed) return origin;
  const early = origin.read() as Buffer | null;
  const { peer } = origin;
  const handle = detachHandle(origin) as unknown as PipeHandle;
  const stream = streamOver(handle, peer, {
    buffer: slab,
    callback(length, buffer) {
      onBytes(buffer.subarray(0, length));
      return true;
    },
  });
  if (early !== null) queueMicrotask(() => onBytes(early));
  return stream;
}
