import { Counter, type Registry } from 'prom-client';
import type { Guest } from '../guest/guest.ts';
import { DROP_REASONS } from './counts.ts';

/** What the guests' own counts say; read when somebody asks, for a datagram is too short to pay for a metric. */
export function registerDatagrams(registry: Registry, prefix: string, guests: () => Iterable<Guest>): void {
  const counter = (
    name: string,
    help: string,
    label: string,
    read: (guest: Guest) => Readonly<Record<string, number>>,
  ): void => {
    new Counter({
      name: prefix + name,
      help,
      labelNames: ['guest', label],
      registers: [registry],
      collect() {
        this.reset();
        for (const guest of guests())
          for (const [value, count] of Object.entries(read(guest)))
            this.inc({ guest: guest.name, [label]: value }, count);
      },
    });
  };
  counter(
    'datagrams_total',
    'Datagrams carried: in is towards the guest, out is from it',
    'direction',
    ({ datagrams }) => ({ in: datagrams.in, out: datagrams.out }),
  );
  counter('datagram_bytes_total', 'Their payload', 'direction', ({ datagrams }) => ({
    in: datagrams.inBytes,
    out: datagrams.outBytes,
  }));
  counter('datagrams_dropped_total', 'Datagrams that went nowhere, and why', 'reason', ({ datagrams }) =>
    Object.fromEntries(DROP_REASONS.map((reason) => [reason, datagrams.dropped[reason]])),
  );
}
