/**
 * Read buffers for the splice. A flow that is idle or carries small messages reads into one buffer that all flows of
 * the process share and copies what came (cheap, and an idle flow holds no buffer at all). A flow that fills it
 * borrows a large one and writes from it without a copy until its reads get small again.
 */

/** What one read of a quiet flow takes at most; a read this long makes the flow borrow a bulk buffer. */
export const SHARED_READ_BYTES = 16 * 1024;
/** Large enough that system calls cost little beside copying, small enough for the cache and for fair turns. */
export const BULK_READ_BYTES = 256 * 1024;
/** Idle bulk buffers kept for the next borrower: 8 MiB. More flows than that allocate and free. */
const POOL_MAX_COUNT = 64;

const shared = Buffer.allocUnsafeSlow(SHARED_READ_BYTES);
const pool: Buffer[] = [];

/** The process's shared buffer: what is read into it must be copied before the callback returns. */
export function sharedReadBuffer(): Buffer {
  return shared;
}

export function borrowBulkBuffer(): Buffer {
  return pool.pop() ?? Buffer.allocUnsafeSlow(BULK_READ_BYTES);
}

/** The buffer must not be referenced by a write in flight. */
export function returnBulkBuffer(buffer: Buffer): void {
  if (pool.length < POOL_MAX_COUNT) pool.push(buffer);
}
