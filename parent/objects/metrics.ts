import { Counter, Histogram, type Registry } from 'prom-client';
import type { StoreObservation } from '../../shared/objects/observe.ts';

const PREFIX = 'postern_parent_objects_';
/** From a page cache to the deadline of a request. */
const BUCKETS_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 15];

/** Object operations by guest; operation and outcome are closed sets. */
export class ObjectMetrics {
  readonly #operations: Counter;
  readonly #bytes: Counter;
  readonly #seconds: Histogram;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#operations = new Counter({
      name: `${PREFIX}operations_total`,
      help: 'Operations on objects, by what became of them',
      labelNames: ['guest', 'operation', 'outcome'],
      registers,
    });
    this.#bytes = new Counter({
      name: `${PREFIX}bytes_total`,
      help: 'Bytes of objects: in is towards the guest, out is from it',
      labelNames: ['guest', 'direction'],
      registers,
    });
    this.#seconds = new Histogram({
      name: `${PREFIX}seconds`,
      help: 'Time that operations took, their wait for a turn included',
      labelNames: ['guest', 'operation'],
      buckets: BUCKETS_SECONDS,
      registers,
    });
  }

  observe(guest: string, observation: StoreObservation): void {
    const { operation, outcome, durationMs, sentBytes, receivedBytes } = observation;
    this.#operations.inc({ guest, operation, outcome });
    this.#seconds.observe({ guest, operation }, durationMs / 1000);
    if (sentBytes > 0) this.#bytes.inc({ guest, direction: 'out' }, sentBytes);
    if (receivedBytes > 0) this.#bytes.inc({ guest, direction: 'in' }, receivedBytes);
  }

  /** A guest that is in the configuration no more leaves no series behind. */
  async forget(guest: string): Promise<void> {
    for (const metric of [this.#operations, this.#bytes, this.#seconds]) {
      const { values } = await metric.get();
      for (const { labels } of values) {
        // A histogram also lists its buckets, which go with the series.
        const { le: _, ...own } = labels as Record<string, string>;
        if (own['guest'] === guest) metric.remove(own);
      }
    }
  }
}
