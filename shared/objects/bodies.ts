/**
 * Buffers for large bodies, used again. V8 counts their memory against its heap, and a full collection for every few
 * of them takes more time than all the copying (measured: 60 % of the CPU of 8 MiB transfers).
 */

/** Below it the allocator is fast and V8 does not care. */
const POOLED_MIN_BYTES = 256 * 1024;
/** Sizes are rounded up to it, so that few classes serve all. */
const CLASS_BYTES = 1024 * 1024;
/** Memory that lies idle at most, one object of 8 MiB and a little; what comes back beyond it is freed. */
const IDLE_MAX_BYTES = 12 * 1024 * 1024;

/** The idle ones by size class; the last to come back is the warmest. */
const idle = new Map<number, ArrayBuffer[]>();
/** Those that are out. What is not in here is not taken back, and nothing is taken back twice. */
const lent = new WeakSet<ArrayBufferLike>();
let idleBytes = 0;

/** A buffer of that length with any content. It may be given to `recycleBody`, and need not. */
export function allocateBody(length: number): Buffer {
  if (length < POOLED_MIN_BYTES) return Buffer.allocUnsafeSlow(length);
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
  if (idleBytes + store.byteLength > IDLE_MAX_BYTES) return;
  const stores = idle.get(store.byteLength) ?? [];
  stores.push(store);
  idle.set(store.byteLength, stores);
  idleBytes += store.byteLength;
}

/** Says that a write of the body may never end: from now on `recycleBody` leaves its memory to the garbage collector. */
export function abandonBody(body: Buffer): void {
  lent.delete(body.buffer);
}
