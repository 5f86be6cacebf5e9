import { isMainThread } from 'node:worker_threads';
import { configureBulk, startBulkThreads } from '../../shared/flow/bulk-threads.ts';

/**
 * Every flow of this process is bulk from its first byte on. Imported by tests, and preloaded into the programs that they
 * start (`node --import`).
 */
if (isMainThread) {
  configureBulk({ threadCount: 2, afterBytes: 0, leastFlows: 1 });
  await startBulkThreads();
}
