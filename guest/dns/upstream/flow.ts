import type { Stream } from '../../../shared/transport/transport.ts';
import { Association } from '../../flow/association.ts';
import type { FlowOpener } from '../../flow/opener.ts';
import { type DatagramUpstream, datagramUpstream } from './datagrams.ts';
import type { OpenPort } from './question-port.ts';
import type { Carrier } from './resolvers.ts';

/** The label of the flows that carry questions, in logs and counters. */
const RULE = 'resolvers';

/** Connections to resolvers, kept between questions; whoever made it closes it. */
export interface FlowCarrier extends Carrier {
  close(): void;
}

/**
 * Questions go through the parent's own flows, to the resolvers that the owner chose and to no others: over TCP (or what
 * is encrypted on it), and over UDP where the owner says so. A connection is kept, so datagrams are no quicker.
 */
export function flowCarrier(opener: FlowOpener, ca?: string): FlowCarrier {
  const streams = new Set<Stream>();
  const datagrams: DatagramUpstream[] = [];
  const closing = new AbortController();
  const openPort = portsThrough(opener);
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
    udp: (server) => {
      const upstream = datagramUpstream(server, openPort);
      datagrams.push(upstream);
      return upstream;
    },
    tcpUnlessAsked: true,
    close: () => {
      closing.abort();
      for (const stream of streams) stream.destroy();
      for (const upstream of datagrams) upstream.close();
    },
    ...(ca === undefined ? {} : { ca }),
  };
}

/** An association for each port. The policy is in what is sent there: questions, to the one server. */
function portsThrough(opener: FlowOpener): OpenPort {
  return async ({ address, port }, signal, events) => {
    const labels = { via: 'resolver', protocol: 'udp', port, address, rule: RULE } as const;
    return new Association(await opener.associate(labels, signal), events);
  };
}
