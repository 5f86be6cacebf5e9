import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import type { Stream } from '../../../shared/transport/transport.ts';
import { encodeDatagram, type UdpFrame, UdpFrameDecoder } from '../../../shared/wire/datagram.ts';
import { until } from '../setup.ts';

/** Loopback, named for datagrams, which is where the tests' servers are. */
export const LOOPBACK_UDP = {
  allow: [
    { cidr: '127.0.0.0/8', ports: '1-65535', protocol: 'udp' },
    { ip: '::1', ports: '1-65535', protocol: 'udp' },
  ],
};

export interface UdpPeer {
  readonly socket: Socket;
  readonly port: number;
  readonly received: { readonly payload: Buffer; readonly from: RemoteInfo }[];
}

/** A UDP socket that ends with the test; without `answer` it is silent. */
export async function udpPeer(
  t: TestContext,
  address = '127.0.0.1',
  answer?: (payload: Buffer, from: RemoteInfo, socket: Socket) => void,
): Promise<UdpPeer> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  const received: UdpPeer['received'] = [];
  socket.on('message', (payload, from) => {
    received.push({ payload, from });
    answer?.(payload, from, socket);
  });
  socket.bind(0, address);
  await once(socket, 'listening');
  t.after(() => socket.close());
  return { socket, port: socket.address().port, received };
}

export function echo(payload: Buffer, from: RemoteInfo, socket: Socket): void {
  socket.send(payload, from.port, from.address);
}

/** The guest's end of an association, by hand. */
export class TestAssociation {
  readonly stream: Stream;
  readonly frames: UdpFrame[] = [];
  readonly #decoder = new UdpFrameDecoder();

  constructor(stream: Stream) {
    this.stream = stream;
    stream.on('data', (piece: Buffer) => this.frames.push(...this.#decoder.push(piece)));
  }

  send(port: number, payload: Buffer | string, address = '127.0.0.1'): void {
    this.stream.write(encodeDatagram({ address, port }, Buffer.from(payload)));
  }

  /** The frame at this place, once it has come. */
  async frame(index: number): Promise<UdpFrame> {
    await until(() => this.frames.length > index, `frame ${index}`);
    return this.frames[index] as UdpFrame;
  }

  get texts(): string[] {
    return this.frames.map((frame) => {
      if (frame.type === 'close') return `close ${frame.status}`;
      const rest = frame.type === 'datagram' ? frame.payload.toString() : frame.status;
      return `${frame.type} ${frame.remote.address} ${rest}`;
    });
  }
}
