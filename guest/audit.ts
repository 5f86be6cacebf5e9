import type { ErrorCode } from '../shared/errors.ts';
import { type Logger, LogRateLimiter } from '../shared/log.ts';
import type { DnssecState } from '../shared/policy/types.ts';
import type { FlowLabels, LiveFlow } from './flow/flow-table.ts';

/** The names of everything that the agent reports, for whoever reads its log by program. Closed: docs/configuration.md lists it. */
export const EVENTS = [
  'agent.up',
  'agent.stopping',
  'session.up',
  'session.draining',
  'session.lost',
  'session.failed',
  'flow.opened',
  'flow.closed',
  'flow.refused',
  'flow.failed',
  'inbound.refused',
  'name.refused',
  'name.failed',
  'proxy.malformed',
  'volume.attached',
  'volume.detached',
  'volume.evicted',
  'volume.resized',
  'volume.failed',
  'volume.mounted',
  'volume.engine',
  'workload.started',
  'workload.exited',
  'workload.unprotected',
] as const;
export type EventName = (typeof EVENTS)[number];

/** What is known of a flow that did not come about. */
export interface RefusalRecord {
  readonly via: FlowLabels['via'];
  readonly protocol: 'tcp' | 'udp';
  /** The destination as the application wrote it, cut to a bounded length. */
  readonly destination: string;
  readonly port: number;
  readonly name?: string;
  readonly address?: string;
  readonly rule?: string;
  /** A reason code of the policy, or the code of the error. */
  readonly reason: string;
  readonly dnssec?: DnssecState;
  /** What failed where the answer for the name is bogus. */
  readonly code?: ErrorCode;
  readonly client?: string;
}

/** A question to the DNS server that was not answered. */
export interface NameRecord {
  /** As it was asked, cut to a bounded length. */
  readonly name: string;
  readonly type: string;
  readonly dnssec?: DnssecState;
  readonly code?: ErrorCode;
}

/** Counters since the agent started, for `postern guest status`. */
export interface AuditTotals {
  opened: number;
  closed: number;
  refused: number;
  failed: number;
  malformed: number;
  sentBytes: number;
  receivedBytes: number;
}

/** Reason codes counted apart; the sets of codes are closed and smaller than this. */
const REASONS_MAX_COUNT = 64;

/** Lines about flows that the log gets in one window; a console of an enclave is slow, and a scan is endless. */
const LINES_MAX_COUNT = 200;
const LINES_WINDOW_MS = 10_000;

/** So many lines a window, whatever they are about. */
class LineBudget {
  #since = Number.NEGATIVE_INFINITY;
  #count = 0;
  #unsaid = 0;

  /** Whether a line may be written, and how many were not since the last one. */
  take(): { readonly unsaid?: number } | undefined {
    const now = performance.now();
    if (now - this.#since >= LINES_WINDOW_MS) {
      this.#since = now;
      this.#count = 0;
    }
    this.#count += 1;
    if (this.#count > LINES_MAX_COUNT) {
      this.#unsaid += 1;
      return undefined;
    }
    const unsaid = this.#unsaid;
    this.#unsaid = 0;
    return unsaid > 0 ? { unsaid } : {};
  }
}

/** Counts what happens to flows and writes it to the log; what a peer can repeat at will is said once a window. */
export class Audit {
  readonly totals: AuditTotals = {
    opened: 0,
    closed: 0,
    refused: 0,
    failed: 0,
    malformed: 0,
    sentBytes: 0,
    receivedBytes: 0,
  };
  readonly refusedBy = new Map<string, number>();
  readonly #logger: Logger;
  readonly #limiter: LogRateLimiter;
  readonly #budget = new LineBudget();

  constructor(logger: Logger, limiter = new LogRateLimiter()) {
    this.#logger = logger;
    this.#limiter = limiter;
  }

  event(level: 'info' | 'warn' | 'error', event: EventName, message: string, fields: object = {}): void {
    this.#logger[level]({ event, ...fields }, message);
  }

  flowOpened({ flowId, labels }: LiveFlow): void {
    this.totals.opened += 1;
    this.#logger.debug({ event: 'flow.opened' satisfies EventName, flowId, ...labels }, 'flow opened');
  }

  flowClosed(flow: LiveFlow, end: string): void {
    const { flowId, labels, sentBytes, receivedBytes } = flow;
    this.totals.closed += 1;
    this.totals.sentBytes += sentBytes;
    this.totals.receivedBytes += receivedBytes;
    const isQuestions = labels.protocol === 'udp' && labels.via === 'resolver';
    const line = isQuestions ? {} : this.#budget.take();
    if (line === undefined) return;
    const seconds = (Date.now() - flow.startedAt.getTime()) / 1000;
    const fields = { flowId, ...labels, end, sentBytes, receivedBytes, seconds, ...line };
    // Ports of the resolver's own are given up every few questions: nothing to tell anybody by default.
    const level = isQuestions ? 'debug' : 'info';
    this.#logger[level]({ event: 'flow.closed' satisfies EventName, ...fields }, 'flow closed');
  }

  /** The policy said no. */
  refused(event: 'flow.refused' | 'inbound.refused', record: RefusalRecord, detail?: string): void {
    this.totals.refused += 1;
    this.#count(record.reason);
    this.#once('warn', event, detail ?? `refused: ${record.reason}`, record, keyOf(record));
  }

  /** The policy said yes, and it did not work. */
  failed(record: RefusalRecord, detail: string): void {
    this.totals.failed += 1;
    this.#count(record.reason);
    this.#once('warn', 'flow.failed', detail, record, keyOf(record));
  }

  /** The DNS server gave no answer: the policy said no, or there was none that could be given. */
  question(event: 'name.refused' | 'name.failed', record: NameRecord, detail: string): void {
    this.#once('warn', event, detail, record, `${record.name} ${record.type}`);
  }

  /** A peer sent bytes that are not of the protocol. */
  malformed(via: FlowLabels['via'], detail: string): void {
    this.totals.malformed += 1;
    const suppressed = this.#limiter.allow(`proxy.malformed ${via}`);
    if (suppressed === undefined) return;
    this.event('warn', 'proxy.malformed', detail, { via, ...(suppressed > 0 && { suppressed }) });
  }

  #count(reason: string): void {
    if (!this.refusedBy.has(reason) && this.refusedBy.size >= REASONS_MAX_COUNT) return;
    this.refusedBy.set(reason, (this.refusedBy.get(reason) ?? 0) + 1);
  }

  #once(level: 'warn', event: EventName, message: string, record: object, key: string): void {
    const suppressed = this.#limiter.allow(`${event} ${key}`);
    if (suppressed === undefined) return;
    const line = this.#budget.take();
    if (line !== undefined)
      this.event(level, event, message, { ...record, ...(suppressed > 0 && { suppressed }), ...line });
  }
}

function keyOf({ destination, port, reason }: RefusalRecord): string {
  return `${destination} ${port} ${reason}`;
}
