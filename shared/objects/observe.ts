import { type ErrorCode, isPosternError } from '../errors.ts';
import { type StoreOperation, wrapStore } from './around.ts';
import { type Clock, SYSTEM_CLOCK } from './clock.ts';
import type { ObjectStore } from './store.ts';

/** A closed set, fit for a metric's label. */
export type StoreOutcome = 'ok' | 'absent' | 'exists' | ErrorCode | 'bug';

export interface StoreObservation {
  readonly operation: StoreOperation;
  readonly outcome: StoreOutcome;
  readonly durationMs: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

/** Tells `observe` of every call once it is over. */
export function observedStore(
  inner: ObjectStore,
  observe: (observation: StoreObservation) => void,
  clock: Clock = SYSTEM_CLOCK,
): ObjectStore {
  return wrapStore(inner, async (call, run) => {
    const startMs = clock.nowMs();
    const tell = (outcome: StoreOutcome, receivedBytes: number): void => {
      const { operation, sentBytes } = call;
      observe({ operation, outcome, durationMs: clock.nowMs() - startMs, sentBytes, receivedBytes });
    };
    try {
      const answer = await run(call.signal);
      tell(outcomeOf(call.operation, answer), Buffer.isBuffer(answer) ? answer.length : 0);
      return answer;
    } catch (error) {
      tell(isPosternError(error) ? error.code : 'bug', 0);
      throw error;
    }
  });
}

function outcomeOf(operation: StoreOperation, answer: unknown): StoreOutcome {
  if (answer === 'exists') return 'exists';
  return answer === undefined && operation !== 'delete' ? 'absent' : 'ok';
}
