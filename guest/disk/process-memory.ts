import { setFlagsFromString } from 'node:v8';
import { returnFreedMemory } from '../../shared/transport/native/libc.ts';

/** Often enough that little gathers in between; a trim takes 2 to 9 ms where much is free. */
const TRIM_INTERVAL_MS = 400;

/** Of a page, not Node's 64 KiB: a few bytes that are kept for long keep all of the slab that they were cut from. */
const SLAB_BYTES = 4096;

/**
 * For a process that serves volumes, before the first: memory that was used for a moment is not kept for good. Measured each
 * on an agent that is written to as fast as it goes; none of it costs speed.
 *
 * V8's young generation stays at the size it starts with. Left alone it grows to 48 MiB, and holds more of the short-lived
 * bodies outside of its heap until it is full (65 MiB). The old one is collected when it has grown by a fifth, not when it has
 * doubled (30 MiB). What lies free between longer-lived blocks of the C library is given back time and again (20 to 50 MiB).
 */
export function keepMemorySmall(): void {
  const trim = returnFreedMemory();
  setFlagsFromString('--semi-space-growth-factor=1');
  setFlagsFromString('--heap-growing-percent=20');
  Buffer.poolSize = SLAB_BYTES;
  setInterval(trim, TRIM_INTERVAL_MS).unref();
}
