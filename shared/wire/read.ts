import type { Socket } from 'node:net';
import { PosternError } from '../errors.ts';

/**
 * Takes exactly `count` bytes from the front of a stream and leaves the rest in it (the stream stays paused).
 * For the few bytes before a flow's data, where one deadline bounds a peer that sends nothing.
 * @throws PosternError ERR_WIRE_TIMEOUT, ERR_TRANSPORT_CLOSED (ended before that), ERR_TRANSPORT_FAILED
 */
export function readExactly(stream: Socket, count: number, timeoutMs: number): Promise<Buffer> {
  if (count === 0) return Promise.resolve(Buffer.alloc(0));
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => finish(timeoutError(count, timeoutMs)), timeoutMs);
    const finish = (outcome: Buffer | PosternError): void => {
      clearTimeout(timer);
      stream.off('readable', onReadable).off('end', onEnd).off('error', onError).off('close', onEnd);
      if (outcome instanceof PosternError) reject(outcome);
      else resolve(outcome);
    };
    const onReadable = (): void => {
      // A read of more than the stream holds makes it ask the kernel for more; once that has said that there is no
      // more, the same read gives what is left.
      const bytes: Buffer | null = stream.read(count);
      if (bytes?.length === count) finish(bytes);
      else if (bytes !== null || stream.readableEnded || stream.destroyed) onEnd();
    };
    const onEnd = (): void => {
      finish(new PosternError('ERR_TRANSPORT_CLOSED', `stream ended before ${count} bytes`));
    };
    const onError = (cause: Error): void => {
      finish(new PosternError('ERR_TRANSPORT_FAILED', cause.message, { cause }));
    };
    stream.on('readable', onReadable).on('end', onEnd).on('error', onError).on('close', onEnd);
    onReadable();
  });
}

function timeoutError(count: number, timeoutMs: number): PosternError {
  return new PosternError('ERR_WIRE_TIMEOUT', `${count} bytes did not come within ${timeoutMs} ms`);
}
