import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf } from './failure.ts';
import { adoptStream, type PipeHandle } from './native/handle.ts';
import { closeDescriptor, finishConnect, openSocket, startConnect } from './native/libc.ts';
import { whenWritable } from './native/ready.ts';

/** A unix listener whose backlog is full answers EAGAIN; the pause doubles from the first to the second of these. */
const BACKLOG_RETRY_FIRST_MS = 1;
const BACKLOG_RETRY_MAX_MS = 50;

/**
 * A connected descriptor of `family`, adopted. Nothing is left open when it fails.
 * @throws ErrnoError, or the signal's reason
 */
export async function connectSocket(
  family: number,
  address: Buffer,
  signal: AbortSignal,
): Promise<PipeHandle> {
  const fd = openSocket(family);
  try {
    await connectDescriptor(fd, address, signal);
    signal.throwIfAborted();
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
  return adoptStream(fd);
}

async function connectDescriptor(fd: number, address: Buffer, signal: AbortSignal): Promise<void> {
  for (let pauseMs = BACKLOG_RETRY_FIRST_MS; ; pauseMs = Math.min(pauseMs * 2, BACKLOG_RETRY_MAX_MS)) {
    try {
      if (startConnect(fd, address)) return;
      await whenWritable(fd, signal);
      return finishConnect(fd);
    } catch (error) {
      if (errnoOf(error) !== 'EAGAIN') throw error;
    }
    await pause(pauseMs, signal);
  }
}

async function pause(pauseMs: number, signal: AbortSignal): Promise<void> {
  await sleep(pauseMs, undefined, { signal }).catch(() => signal.throwIfAborted());
}
