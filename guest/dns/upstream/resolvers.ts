import { addressText, type ResolverAddress, type SocketAddress } from './address.ts';
import { type ConnectStream, directTcp } from './connect.ts';
import { padQuery } from './padding.ts';
import { PipelinedUpstream } from './pipelined.ts';
import type { TlsOptions } from './tls.ts';
import { udpUpstream } from './udp.ts';
import type { Upstream, UpstreamResolver } from './upstream.ts';

/** What carries questions: streams always, datagrams where there is something for them. */
export interface Carrier {
  readonly connect: (server: SocketAddress) => ConnectStream;
  readonly udp?: (server: SocketAddress) => Upstream;
  /** True: only a resolver with `udp:` in front is asked over UDP. */
  readonly tcpUnlessAsked?: boolean;
  /** PEM certificates to trust for encrypted resolvers instead of the bundled ones. */
  readonly ca?: string;
}

/** This machine's own sockets. */
export const DIRECT: Carrier = { connect: directTcp, udp: udpUpstream };

/** The ways to a resolver, quickest first. An encrypted one is never asked in the clear. */
export function resolverFor(server: ResolverAddress, carrier: Carrier): UpstreamResolver {
  const at = addressText(server);
  const connect = carrier.connect(server);
  if (server.protocol === 'plain' || server.protocol === 'udp') {
    const tcp = new PipelinedUpstream(`${at} over TCP`, connect);
    const overUdp = server.protocol === 'udp' || carrier.tcpUnlessAsked !== true;
    const udp = overUdp ? carrier.udp?.(server) : undefined;
    return { name: at, ways: udp === undefined ? [tcp] : [udp, tcp] };
  }
  const { serverName } = server;
  const ca = carrier.ca === undefined ? {} : { ca: carrier.ca };
  if (server.protocol === 'tls') {
    const secure = encrypted(connect, { serverName, protocol: 'dot', ...ca });
    const way = new PipelinedUpstream(`${serverName} at ${at} over TLS`, secure, padQuery);
    return { name: serverName, ways: [way] };
  }
  const secure = encrypted(connect, { serverName, protocol: 'h2', ...ca });
  const name = `${serverName} at ${at} over HTTPS`;
  const way = later(name, async () => {
    const { HttpsUpstream } = await import('./https.ts');
    return new HttpsUpstream(name, serverName, server.path, secure);
  });
  return { name: serverName, ways: [way] };
}

/** TLS and HTTP/2 take longer to load than all else of a lookup, so they are loaded with the first question. */
function encrypted(connect: ConnectStream, options: TlsOptions): ConnectStream {
  return async (signal) => (await import('./tls.ts')).overTls(connect, options)(signal);
}

function later(name: string, load: () => Promise<Upstream>): Upstream {
  let loaded: Promise<Upstream> | undefined;
  return {
    name,
    exchange: async (query, options) => {
      loaded ??= load();
      return (await loaded).exchange(query, options);
    },
  };
}
