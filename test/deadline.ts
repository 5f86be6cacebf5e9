import { isMainThread } from 'node:worker_threads';

/** Longer than the longest test may take, so that a test that hangs is named by the runner first. */
const FILE_TIMEOUT_MS = 1_200_000;

/**
 * Loaded before every test file: ends one that does not end by itself. The runner's own time limit holds for tests,
 * not for a process that a failed test left a socket open in.
 */
if (isMainThread)
  setTimeout(() => {
    process.stderr.write(`${process.argv[1]} did not end: ${process.getActiveResourcesInfo().join(', ')}\n`);
    process.exit(1);
  }, FILE_TIMEOUT_MS).unref();
