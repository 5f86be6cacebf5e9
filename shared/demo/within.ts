import { PosternError } from '../errors.ts';

/**
 * The outcome of `step`, if it has one in time. A step that is late goes on: what waits for a disk that does not answer
 * cannot be stopped, only left alone.
 * @throws PosternError ERR_DEMO_FAILED, which names it: `what` did not end
 */
export async function within<T>(timeoutMs: number, what: string, step: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    const text = `${what} did not end within ${timeoutMs} ms`;
    timer = setTimeout(() => reject(new PosternError('ERR_DEMO_FAILED', text)), timeoutMs);
  });
  try {
    return await Promise.race([step, late]);
  } finally {
    clearTimeout(timer);
  }
}
