/**
 * Buffers for large bodies, freed or used again as soon as nobody needs them. V8 counts their memory against its heap, and a
 * full collection for every few of them takes more time than all the copying (measured: 60 % of the CPU of 8 MiB transfers).
 */

/** Below it memory that comes back is not worth keeping; it is freed. */
const POOLED_MIN_BYTES = 256 * 1024;
/** Below it the garbage collector does as well. */
const FREED_MIN_BYTES = 16 * 1024;
/** Sizes are rounded up to it, so that few classes serve all. */
const CLASS_BYTES = 1024 * 1024;
/** Memory that lies idle at most: a few requests of an NBD client or reads of a store. What comes back beyond it is freed. */
const IDLE_MAX_BYTES = 4 * 1024 * 1024;

/** The idle ones by size class; the last to come back is the warmest. */
const idle = new Map<number, ArrayBuffer[]>();
/** Those that are out. What is not in here is not taken back, and nothing is taken back twice. */
const lent = new WeakSet<ArrayBufferLike>();
let idleBytes = 0;

/** A buffer of that length with any content. It may be given to `recycleBody`, and need not. */
export function allocateBody(length: number): Buffer {
  if (length < POOLED_MIN_BYTES) {
    const body = Buffer.allocUnsafeSlow(length);
    if (length >= FREED_MIN_BYTES) lent.add(body.buffer);
    return body;
  }
  const classBytes = Math.ceil(length / CLASS_BYTES) * CLASS_BYTES;
  const used = idle.get(classBytes)?.pop();
  if (used !== undefined) idleBytes -= classBytes;
  const store = used ?? new ArrayBuffer(classBytes);
  lent.add(store);
  return Buffer.from(store, 0, length);
}

/**
 * Takes a body back that nothing refers to any more: no view of it is read again, and no write of it is under way.
 * Other buffers are left to the garbage collector.
 */
export function recycleBody(body: Buffer): void {
  const store = body.buffer;
  if (!(store instanceof ArrayBuffer) || !lent.delete(store)) return;
  if (store.byteLength < POOLED_MIN_BYTES || idleBytes + store.byteLength > IDLE_MAX_BYTES) {
    free(store);
    return;
  }
  const stores = idle.get(store.byteLength) ?? [];
  stores.push(store);
  idle.set(store.byteLength, stores);
  idleBytes += store.byteLength;
}

/** Says that a write of the body may never end: from now on `recycleBody` leaves its memory to the garbage collector. */
export function abandonBody(body: Buffer): void {
  lent.delete(body.buffer);
}

/**
 * Gives the memory of bytes that nothing refers to any more back at once. Left to the garbage collector, which counts objects
 * and not what they hold, such memory piles up to many times what is in use. Bytes that share their memory are left alone.
 */
export function freeBytes(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength === bytes.length) free(buffer);
}

/** Detaches it: what is transferred to is empty, and the memory has no other owner. */
function free(store: ArrayBuffer): void {
  store.transfer(0);
}
