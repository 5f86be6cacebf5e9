import type { ChildProcess } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { ProcessCalls } from './native.ts';

/** Node reaps its own child within the loop's turn; until then the child hides those behind it. */
const RETRY_MS = 20;
/** SIGCHLD of several children may come as one; this is how long an orphan can stay unseen at worst. */
const SWEEP_MS = 5_000;

/**
 * Reaps children that Node does not know: processes that the workload's own processes left behind and that the
 * kernel gave to us. Children that Node started are left to Node, which would otherwise lose their exit codes.
 */
export class Reaper {
  readonly #calls: ProcessCalls;
  /** Node's own; their pid is set after the channel tells of them. */
  readonly #own = new Set<ChildProcess>();
  readonly #sweepTimer: NodeJS.Timeout;
  #retryTimer: NodeJS.Timeout | undefined;
  reapedCount = 0;

  constructor(calls: ProcessCalls) {
    this.#calls = calls;
    calls.becomeSubreaper();
    subscribe('child_process', this.#onSpawn);
    process.on('SIGCHLD', this.#reap);
    this.#sweepTimer = setInterval(this.#reap, SWEEP_MS).unref();
  }

  close(): void {
    unsubscribe('child_process', this.#onSpawn);
    process.off('SIGCHLD', this.#reap);
    clearInterval(this.#sweepTimer);
    clearTimeout(this.#retryTimer);
  }

  readonly #onSpawn = (message: unknown): void => {
    const { process: child } = message as { process: ChildProcess };
    this.#own.add(child);
    child.once('exit', () => this.#own.delete(child));
    child.once('error', () => {
      if (child.pid === undefined) this.#own.delete(child);
    });
  };

  readonly #reap = (): void => {
    for (let pid = this.#calls.peekEnded(); pid !== 0; pid = this.#calls.peekEnded()) {
      if (this.#isOwn(pid)) {
        clearTimeout(this.#retryTimer);
        this.#retryTimer = setTimeout(this.#reap, RETRY_MS).unref();
        return;
      }
      this.#calls.reap(pid);
      this.reapedCount += 1;
    }
  };

  #isOwn(pid: number): boolean {
    for (const child of this.#own) if (child.pid === pid) return true;
    return false;
  }
}
