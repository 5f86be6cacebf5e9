import type { Clock } from './clock.ts';

/**
 * Runs with a signal that aborts with `late()` after that time, or with the outer signal's reason as soon as that one does.
 * Nothing of either is left behind when the run ends: `AbortSignal.timeout` would keep its timer, and `AbortSignal.any` costs
 * more than a small request.
 */
export async function withDeadline<T>(
  clock: Clock,
  limitMs: number,
  outer: AbortSignal | undefined,
  late: () => unknown,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const onOuter = (): void => controller.abort(outer?.reason);
  if (outer?.aborted) onOuter();
  const stopTimer = clock.after(limitMs, () => controller.abort(late()));
  outer?.addEventListener('abort', onOuter, { once: true });
  try {
    return await run(controller.signal);
  } finally {
    stopTimer();
    outer?.removeEventListener('abort', onOuter);
  }
}
