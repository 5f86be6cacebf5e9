import type { FlowOpener } from '../../flow/opener.ts';
import type { Carrier } from './resolvers.ts';

/** The label of the flows that carry questions, in logs and counters. */
const RULE = 'resolvers';

/**
 * Questions go through the parent's own flows: to the resolvers that the owner chose and to no others, over TCP (or what
 * is encrypted on it). Datagrams would spare nothing: the connection is kept.
 */
export function flowCarrier(opener: FlowOpener, ca?: string): Carrier {
  return {
    connect:
      ({ address, port }) =>
      async (signal) => {
        const labels = { via: 'resolver', protocol: 'tcp', port, rule: RULE } as const;
        return (await opener.open([address], labels, signal)).stream;
      },
    ...(ca === undefined ? {} : { ca }),
  };
}
