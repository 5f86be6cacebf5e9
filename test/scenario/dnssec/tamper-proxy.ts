import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { DomainName } from '../../../guest/dns/name.ts';
import type { SocketAddress } from '../../../guest/dns/upstream/address.ts';
import { directTcp } from '../../../guest/dns/upstream/connect.ts';
import { FrameReader, frame } from '../../../guest/dns/upstream/frames.ts';
import { PipelinedUpstream } from '../../../guest/dns/upstream/pipelined.ts';
import { encodeQuery } from '../../../guest/dns/upstream/query.ts';

/** One thing that is sent for a question. */
export interface Sent {
  readonly octets: Buffer;
  readonly afterMs?: number;
  /** From an address that was not asked; over TCP there is no such thing, and nothing is sent. */
  readonly fromElsewhere?: boolean;
}

export interface Asked {
  readonly query: Buffer;
  readonly name: DomainName;
  readonly type: number;
  readonly transport: 'udp' | 'tcp';
  /** What the real resolver says to it. */
  readonly answer: Buffer;
  /** What it says to another question, with the id and the question of this one. */
  ask(name: string, type: number): Promise<Buffer>;
}

export type Tamper = (asked: Asked) => readonly Sent[] | Promise<readonly Sent[]>;

/** Another loopback address of the namespace. */
const ELSEWHERE = '127.0.0.9';
const TIMEOUT_MS = 10_000;

/** The parent: between our validator and a real resolver, over UDP and TCP on one port. */
export class TamperProxy {
  tamper: Tamper = ({ answer }) => [{ octets: answer }];
  askedOverTcp = 0;
  readonly address: SocketAddress;
  readonly #upstream: PipelinedUpstream;
  readonly #udp: UdpSocket;
  readonly #elsewhere: UdpSocket;
  readonly #tcp: Server;
  readonly #sockets = new Set<Socket>();
  readonly #known: Map<string, Promise<Buffer>> | undefined;

  private constructor(
    upstream: SocketAddress,
    [udp, elsewhere, tcp]: readonly [UdpSocket, UdpSocket, Server],
    known: Map<string, Promise<Buffer>> | undefined,
  ) {
    this.#upstream = new PipelinedUpstream('upstream', directTcp(upstream));
    this.address = { address: '127.0.0.1', port: (tcp.address() as AddressInfo).port };
    [this.#udp, this.#elsewhere, this.#tcp, this.#known] = [udp, elsewhere, tcp, known];
    udp.on('message', (query, from) => void this.#answerDatagram(query, from.port, from.address));
    tcp.on('connection', (socket) => this.#accept(socket));
  }

  /** With `known`, each question goes to the real resolver once. */
  static async open(upstream: SocketAddress, known?: Map<string, Promise<Buffer>>): Promise<TamperProxy> {
    const tcp = createServer({ noDelay: true });
    tcp.listen(0, '127.0.0.1');
    await once(tcp, 'listening');
    const [udp, elsewhere] = [createSocket('udp4'), createSocket('udp4')];
    udp.bind((tcp.address() as AddressInfo).port, '127.0.0.1');
    elsewhere.bind(0, ELSEWHERE);
    await Promise.all([once(udp, 'listening'), once(elsewhere, 'listening')]);
    return new TamperProxy(upstream, [udp, elsewhere, tcp], known);
  }

  close(): void {
    this.#udp.close();
    this.#elsewhere.close();
    this.#tcp.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  async #answerDatagram(query: Buffer, port: number, address: string): Promise<void> {
    for (const sent of await this.#tampered(query, 'udp')) {
      if (sent.afterMs !== undefined) await sleep(sent.afterMs);
      (sent.fromElsewhere === true ? this.#elsewhere : this.#udp).send(sent.octets, port, address);
    }
  }

  #accept(socket: Socket): void {
    const reader = new FrameReader();
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
    const answerOne = async (query: Buffer): Promise<void> => {
      this.askedOverTcp += 1;
      for (const sent of await this.#tampered(query, 'tcp')) {
        if (sent.afterMs !== undefined) await sleep(sent.afterMs);
        if (sent.fromElsewhere !== true && !socket.destroyed) socket.write(frame(sent.octets));
      }
    };
    socket.on('data', (chunk: Buffer) => {
      for (const query of reader.push(chunk)) void answerOne(query);
    });
  }

  async #tampered(query: Buffer, transport: 'udp' | 'tcp'): Promise<readonly Sent[]> {
    const end = query.length - 15;
    const asked = {
      query,
      name: DomainName.fromKey(query.toString('latin1', 12, end)),
      type: query.readUInt16BE(end),
      transport,
      answer: await this.#honest(query),
      ask: async (name: string, type: number): Promise<Buffer> => {
        const other = encodeQuery(DomainName.parse(name), type);
        const { length } = other;
        const answer = await this.#honest(other);
        return Buffer.concat([
          query.subarray(0, 2),
          answer.subarray(2, 12),
          query.subarray(12, end + 4),
          answer.subarray(length - 11),
        ]);
      },
    };
    return this.tamper(asked);
  }

  async #honest(query: Buffer): Promise<Buffer> {
    const exchange = (): Promise<Buffer> =>
      this.#upstream.exchange(query, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (this.#known === undefined) return exchange();
    const question = query.toString('latin1', 2);
    const known = this.#known.get(question) ?? exchange();
    this.#known.set(question, known);
    const answer = Buffer.from(await known);
    query.copy(answer, 0, 0, 2);
    return answer;
  }
}
