import { once } from 'node:events';
import type { TransportAddress } from '../../shared/transport/address.ts';
import { connectStream, listenStream } from '../../shared/transport/connect.ts';
import type { ConnectOptions, Stream } from '../../shared/transport/transport.ts';
import type { AddressedTransport } from '../conformance/transport.ts';

export interface Endpoints {
  readonly listenAt: TransportAddress;
  readonly connectTo: TransportAddress;
  readonly nobody: TransportAddress;
  readonly peers: AddressedTransport['peers'];
  close?(): Promise<void>;
}

/**
 * Both ends of a transport in this process. Which accepted stream belongs to which connecting one is found by the four
 * bytes that each connecting end sends first.
 */
export async function endpointsUnderTest(endpoints: Endpoints): Promise<AddressedTransport> {
  const waiting = new Map<number, (stream: Stream) => void>();
  let nextNumber = 1;
  const listener = await listenStream(endpoints.listenAt, (stream) => {
    stream.on('error', () => stream.destroy());
    void readNumber(stream).then((number) => {
      const opener = waiting.get(number);
      if (opener === undefined) stream.destroy();
      else opener(stream);
    });
  });
  return {
    peers: endpoints.peers,
    async open(options?: ConnectOptions) {
      const number = nextNumber++;
      const accepted = new Promise<Stream>((resolve) => waiting.set(number, resolve));
      const stream = await connectStream(endpoints.connectTo, options);
      const greeting = Buffer.alloc(4);
      greeting.writeUInt32BE(number);
      stream.write(greeting);
      const other = await accepted;
      waiting.delete(number);
      other.removeAllListeners('error');
      return [stream, other];
    },
    connect: (options) => connectStream(endpoints.connectTo, options),
    connectNobody: () => connectStream(endpoints.nobody),
    async close() {
      await listener.close();
      await endpoints.close?.();
    },
  };
}

async function readNumber(stream: Stream): Promise<number> {
  for (;;) {
    const greeting: Buffer | null = stream.read(4);
    if (greeting !== null) return greeting.length === 4 ? greeting.readUInt32BE() : 0;
    const event = await Promise.race([once(stream, 'readable'), once(stream, 'close')]);
    if (event.length > 0 || stream.destroyed) return 0;
  }
}
