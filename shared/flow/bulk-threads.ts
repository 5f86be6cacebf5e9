import { availableParallelism } from 'node:os';
import { isMainThread, Worker } from 'node:worker_threads';
import type { Logger } from '../log.ts';
import type { Abort, FromThread, Lent, ToThread } from './bulk-message.ts';
import type { FlowEnd } from './flow.ts';

/**
 * Threads that carry bulk. A flow that turns out to be bulk is lent to one of them, so that the main loop stays free for
 * new flows, control frames and small messages. The main thread keeps both sockets, neither reads nor writes them, and
 * closes them when the thread says that the flow is over, or when the thread is gone: the thread works on duplicates
 * of the descriptors. What is half-closed needs no telling: the kernel says EOF again, and takes a second shutdown.
 */
export interface BulkSettings {
  /** Started with the first bulk flow; 0: all flows stay in the main loop. */
  readonly threadCount: number;
  /** See BULK_AFTER_BYTES; 0: every flow is bulk (for tests). */
  readonly afterBytes: number;
  /** See BULK_LEAST_FLOWS. */
  readonly leastFlows: number;
  readonly log: Logger | undefined;
}

/** A thread carries some 10 Gbit/s; more than this many only take turns on the machines that there are. */
export const BULK_THREADS_MAX = 16;
/** Two carry what most network cards bring, and leave a large machine to those that it is for. */
export const BULK_THREADS_DEFAULT = Math.min(2, availableParallelism());
/** A flow is bulk once it carries this much within the window: what is slower costs the main loop next to nothing. */
export const BULK_AFTER_BYTES = 1024 * 1024;
export const BULK_WINDOW_MS = 1_000;
/** Flows of the process for one of them to be lent: a lone one keeps nobody waiting, and is cheaper in the main loop. */
export const BULK_LEAST_FLOWS = 2;

/** What becomes of a flow that was lent. After any but `onReset` it is the lender's again. */
export interface Lender {
  /** The flow's `sendReset`. */
  onReset(): void;
  onDone(end: FlowEnd): void;
  /** The thread had no descriptors left and has not touched the flow; an abort under way was not carried out. */
  onReturned(): void;
  onThreadLost(): void;
}

export interface Loan {
  /** Those of the flow, in memory that its thread counts on in. */
  readonly counts: Float64Array;
  abort(end: Abort): void;
}

let settings: BulkSettings = {
  threadCount: BULK_THREADS_DEFAULT,
  afterBytes: BULK_AFTER_BYTES,
  leastFlows: BULK_LEAST_FLOWS,
  log: undefined,
};

/** For this process; flows that are lent already stay where they are. */
export function configureBulk(changes: Partial<BulkSettings>): void {
  settings = { ...settings, ...changes };
}

/** Tells from a flow's growing count when it is bulk; once it is, it remains so. */
export class BulkMeter {
  #bulk = false;
  #startBytes = 0;
  #startMs = performance.now();

  isBulk(bytes: number): boolean {
    if (this.#bulk || bytes - this.#startBytes < settings.afterBytes) return this.#bulk;
    const nowMs = performance.now();
    this.#bulk = settings.afterBytes === 0 || nowMs - this.#startMs < BULK_WINDOW_MS;
    this.#startBytes = bytes;
    this.#startMs = nowMs;
    return this.#bulk;
  }
}

let flowCount = 0;

/** A flow began, or with -1 ended, lent or not. */
export function countFlow(change: 1 | -1): void {
  flowCount += change;
}

const threads: BulkThread[] = [];
let lastId = 0;

/** Lends a flow to the thread that has the fewest; undefined: it stays, at least for now. */
export function lendFlow(flow: Lent, lender: Lender): Loan | undefined {
  if (settings.threadCount === 0 || flowCount < settings.leastFlows || !isMainThread) return undefined;
  // Why a thread does not start is told by its end.
  startBulkThreads().catch(() => {});
  const inUse = threads.slice(0, settings.threadCount);
  const [thread] = inUse.filter(({ ready }) => ready).sort((a, b) => a.flowCount - b.flowCount);
  return thread?.lend(flow, lender);
}

/** Flows of this process that a thread runs now. */
export function lentFlowCount(): number {
  return threads.reduce((sum, { flowCount }) => sum + flowCount, 0);
}

/** Starts the threads that are missing; resolves when all take flows. */
export async function startBulkThreads(): Promise<void> {
  while (threads.length < settings.threadCount) threads.push(new BulkThread());
  await Promise.all(threads.map(({ started }) => started));
}

class BulkThread {
  readonly started: Promise<void>;
  readonly #worker: Worker;
  readonly #lenders = new Map<number, Lender>();
  #ready = false;
  #error: Error | undefined;

  constructor() {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.started = promise;
    this.#worker = new Worker(new URL(`./bulk-thread${import.meta.filename.slice(-3)}`, import.meta.url));
    this.#worker.on('message', (message: FromThread) => {
      if (message.type === 'ready') {
        this.#ready = true;
        // From here on only the flows that it has keep the process alive.
        this.#worker.unref();
        resolve();
      } else this.#onMessage(message);
    });
    this.#worker.on('error', (error: Error) => {
      this.#error = error;
    });
    this.#worker.on('exit', (code) => {
      const error = this.#error ?? new Error(`the thread ended with code ${code}`);
      reject(error);
      this.#onExit(error);
    });
  }

  get ready(): boolean {
    return this.#ready;
  }

  get flowCount(): number {
    return this.#lenders.size;
  }

  lend(flow: Lent, lender: Lender): Loan {
    lastId += 1;
    const id = lastId;
    this.#lenders.set(id, lender);
    this.#worker.ref();
    const counts = new Float64Array(new SharedArrayBuffer(flow.counts.byteLength));
    counts.set(flow.counts);
    this.#tell({ type: 'lend', id, ...flow, counts });
    return { counts, abort: (end) => this.#tell({ type: 'abort', id, end }) };
  }

  #tell(message: ToThread): void {
    this.#worker.postMessage(message);
  }

  #onMessage(message: Exclude<FromThread, { type: 'ready' }>): void {
    const lender = this.#lenders.get(message.id);
    if (message.type === 'reset') {
      lender?.onReset();
      return;
    }
    this.#lenders.delete(message.id);
    if (this.#lenders.size === 0) this.#worker.unref();
    if (message.type === 'done') lender?.onDone(message.end);
    else lender?.onReturned();
  }

  #onExit(error: Error): void {
    threads.splice(threads.indexOf(this), 1);
    // A bug that is met again would end flow after flow: the main loop carries them from here on, as it can.
    configureBulk({ threadCount: 0 });
    settings.log?.error(
      { event: 'bulk.thread-lost', err: error, flows: this.flowCount },
      'a bulk thread died: its flows are reset, and all others stay in the main loop',
    );
    for (const lender of this.#lenders.values()) lender.onThreadLost();
    this.#lenders.clear();
  }
}
