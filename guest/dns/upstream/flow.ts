import type { Stream } from '../../../shared/transport/transport.ts';
import type { FlowOpener } from '../../flow/opener.ts';
import type { Carrier } from './resolvers.ts';

/** The label of the flows that carry questions, in logs and counters. */
const RULE = 'resolvers';

/** Connections to resolvers, kept between questions; whoever made it closes it. */
export interface FlowCarrier extends Carrier {
  close(): void;
}

/**
 * Questions go through the parent's own flows: to the resolvers that the owner chose and to no others, over TCP (or what
 * is encrypted on it). Datagrams would spare nothing: the connection is kept.
 */
export function flowCarrier(opener: FlowOpener, ca?: string): FlowCarrier {
  const streams = new Set<Stream>();
  const closing = new AbortController();
  return {
    connect:
      ({ address, port }) =>
      async (signal) => {
        const labels = { via: 'resolver', protocol: 'tcp', port, rule: RULE } as const;
        const { stream } = await opener.open([address], labels, AbortSignal.any([signal, closing.signal]));
        streams.add(stream);
        stream.once('close', () => streams.delete(stream));
        return stream;
      },
    close: () => {
      closing.abort();
      for (const stream of streams) stream.destroy();
    },
    ...(ca === undefined ? {} : { ca }),
  };
}
