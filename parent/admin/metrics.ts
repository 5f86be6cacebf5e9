import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { FlowOutcome } from '../../shared/flow/flow.ts';
import type { StreamRefusal } from '../audit.ts';
import type { EgressObserver, OpenOutcome } from '../egress/open.ts';
import type { Guest } from '../guest/guest.ts';
import type { InboundObserver, InboundOutcome } from '../inbound/open.ts';
import { registerDatagrams } from '../nat/metrics.ts';
import type { AssociationObserver } from '../nat/open.ts';

const PREFIX = 'postern_parent_';
/** From a neighbour in the rack to a lost SYN's third retry. */
const DIAL_BUCKETS_SECONDS = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 3, 7, 15, 30];

/** What the gauges show; read when somebody asks, so that they cannot drift from the truth. */
export interface MetricsView {
  guests(): Iterable<Guest>;
  /** Listeners of a guest's forwards that are up. */
  forwardCount(guest: Guest): number;
}

/** The parent's metrics. Labels are guests of the configuration and closed sets of words, nothing that a peer says. */
export class ParentMetrics implements EgressObserver, InboundObserver, AssociationObserver {
  readonly registry = new Registry();
  readonly #opens: Counter;
  readonly #refused: Counter;
  readonly #dialSeconds: Histogram;
  readonly #ended: Counter;
  readonly #reloads: Counter;
  readonly #acceptErrors: Counter;
  /** Bytes of flows that have ended; those of live flows are added when somebody asks. */
  readonly #endedBytes = new Map<string, { in: number; out: number }>();

  constructor(version: string, view: MetricsView) {
    const registers = [this.registry];
    collectDefaultMetrics({ register: this.registry });
    this.#opens = this.#counter('opens_total', 'Flows asked for, by what became of them', [
      'direction',
      'outcome',
    ]);
    this.#refused = this.#counter('streams_refused_total', 'Streams turned away before they were flows', [
      'reason',
    ]);
    this.#ended = this.#counter('flows_ended_total', 'Flows that are over, by how they ended', ['end']);
    this.#acceptErrors = new Counter({
      name: `${PREFIX}accept_errors_total`,
      help: 'Clients of forwards that the operating system could not hand over',
      registers,
    });
    this.#reloads = new Counter({
      name: `${PREFIX}reloads_total`,
      help: 'Reloads of the configuration; a failed one changed nothing',
      labelNames: ['result'],
      registers,
    });
    this.#dialSeconds = new Histogram({
      name: `${PREFIX}dial_seconds`,
      help: 'Time to connect to a destination, failures included',
      labelNames: ['guest'],
      buckets: DIAL_BUCKETS_SECONDS,
      registers,
    });
    const info = new Gauge({
      name: `${PREFIX}build_info`,
      help: 'Always 1',
      labelNames: ['version', 'node'],
      registers,
    });
    info.set({ version, node: process.version }, 1);
    this.#gauges(view);
    this.#bytes(view);
    registerDatagrams(this.registry, PREFIX, () => view.guests());
    for (const result of ['applied', 'failed']) this.#reloads.inc({ result }, 0);
  }

  onEgressOpen(guest: Guest, outcome: OpenOutcome): void {
    if (!guest.retired) this.#opens.inc({ guest: guest.name, direction: 'egress', outcome });
  }

  onInboundOpen(guest: Guest, outcome: InboundOutcome): void {
    if (!guest.retired) this.#opens.inc({ guest: guest.name, direction: 'inbound', outcome });
  }

  onAssociation(guest: Guest, outcome: 'ok' | 'limit'): void {
    if (!guest.retired) this.#opens.inc({ guest: guest.name, direction: 'udp', outcome });
  }

  onDialed(guest: Guest, seconds: number): void {
    if (!guest.retired) this.#dialSeconds.observe({ guest: guest.name }, seconds);
  }

  onFlowDone(guest: Guest, outcome: FlowOutcome): void {
    if (guest.retired) return;
    this.#ended.inc({ guest: guest.name, end: outcome.end });
    const ended = this.#endedBytes.get(guest.name) ?? { in: 0, out: 0 };
    ended.in += outcome.sentBytes;
    ended.out += outcome.receivedBytes;
    this.#endedBytes.set(guest.name, ended);
  }

  onRefused(guest: string, reason: StreamRefusal): void {
    this.#refused.inc({ guest, reason });
  }

  onReload(result: 'applied' | 'failed'): void {
    this.#reloads.inc({ result });
  }

  onAcceptError(): void {
    this.#acceptErrors.inc();
  }

  /** A guest that is in the configuration no more leaves no series behind. */
  forget(guest: string): void {
    this.#endedBytes.delete(guest);
    this.#dialSeconds.remove({ guest });
    for (const metric of [this.#opens, this.#refused, this.#ended]) void removeGuest(metric, guest);
  }

  #counter(name: string, help: string, labels: readonly string[]): Counter {
    const labelNames = ['guest', ...labels];
    return new Counter({ name: PREFIX + name, help, labelNames, registers: [this.registry] });
  }

  #gauges(view: MetricsView): void {
    const gauge = (name: string, help: string, read: (guest: Guest) => number): void => {
      new Gauge({
        name: PREFIX + name,
        help,
        labelNames: ['guest'],
        registers: [this.registry],
        collect() {
          this.reset();
          for (const guest of view.guests()) this.set({ guest: guest.name }, read(guest));
        },
      });
    };
    gauge('session_live', '1 while the guest has a session', ({ session }) => (session?.live ? 1 : 0));
    gauge('state_unusable', '1 while the remembered key of the guest cannot be read', ({ slot }) =>
      slot.state.kind === 'unusable' ? 1 : 0,
    );
    gauge('egress_flows', 'Egress flows that live, dialling ones included', ({ usage }) => usage.flows);
    gauge('inbound_flows', 'Inbound flows that live, pending ones included', ({ usage }) => usage.inbound);
    gauge('associations', 'UDP associations that live', ({ usage }) => usage.associations);
    gauge('dials_in_flight', 'Destinations being connected to', ({ usage }) => usage.dials);
    gauge('inbound_pending', 'Clients that wait for the guest', ({ usage }) => usage.inboundPending);
    gauge('streams_unproven', 'Streams whose proof is not there yet', ({ unproven }) => unproven.size);
    gauge('object_streams', 'Streams of objects that are served', ({ objectStreams }) => objectStreams.size);
    gauge('forwards_listening', 'Forwards whose port is open', (guest) => view.forwardCount(guest));
  }

  #bytes(view: MetricsView): void {
    const ended = this.#endedBytes;
    new Counter({
      name: `${PREFIX}bytes_total`,
      help: 'Payload bytes: in is towards the guest, out is from it',
      labelNames: ['guest', 'direction'],
      registers: [this.registry],
      collect() {
        this.reset();
        for (const guest of view.guests()) {
          const total = { ...(ended.get(guest.name) ?? { in: 0, out: 0 }) };
          for (const flow of guest.flows) {
            total.in += flow.sentBytes;
            total.out += flow.receivedBytes;
          }
          this.inc({ guest: guest.name, direction: 'in' }, total.in);
          this.inc({ guest: guest.name, direction: 'out' }, total.out);
        }
      },
    });
  }
}

/** prom-client removes one exact label set at a time; those of a guest are few (closed sets). */
async function removeGuest(metric: Counter, guest: string): Promise<void> {
  const { values } = await metric.get();
  for (const { labels } of values) if (labels['guest'] === guest) metric.remove(labels);
}
