import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer, isIPv6, type Server, type Socket } from 'node:net';
import { PosternError } from '../../../shared/errors.ts';
import { addressText, type SocketAddress } from '../upstream/address.ts';
import { FrameReader, frame } from '../upstream/frames.ts';
import type { Responder } from './responder.ts';

/** Questions in work at once; a datagram past it is dropped, as on a busy network, and its asker asks again. */
export const QUESTIONS_MAX = 2_000;
/** TCP askers at once; the workload is one machine. */
export const CONNECTIONS_MAX = 128;
/** Questions in work on one connection; the next ones wait, and it is not read from any more. */
export const PIPELINE_MAX = 64;
/** RFC 7766 section 6.2.3: seconds. */
const IDLE_TIMEOUT_MS = 10_000;
/** Answers that an asker leaves lying before its connection is ended. */
const UNREAD_MAX_BYTES = 1024 * 1024;

/** The resolver's face to applications: UDP and TCP on one loopback address. */
export class DnsServer {
  readonly #responder: Responder;
  readonly #sockets = new Set<Socket>();
  #udp: UdpSocket | undefined;
  #tcp: Server | undefined;
  #inWork = 0;

  constructor(responder: Responder) {
    this.#responder = responder;
  }

  /**
   * Binds both, on the same port (any free one for port 0).
   * @throws PosternError ERR_LISTEN_FAILED
   */
  async listen(at: SocketAddress): Promise<SocketAddress> {
    try {
      const tcp = createServer({ noDelay: true }, (socket) => this.#accept(socket));
      this.#tcp = tcp;
      tcp.maxConnections = CONNECTIONS_MAX;
      tcp.listen(at.port, at.address);
      await once(tcp, 'listening');
      const { port } = tcp.address() as AddressInfo;
      const family = isIPv6(at.address) ? 6 : 4;
      // Askers are given by address: nothing is to be looked up, and the answer goes out in the same turn of the loop.
      const udp = createSocket({
        type: family === 6 ? 'udp6' : 'udp4',
        lookup: (address, _options, callback) => callback(null, address, family),
      });
      this.#udp = udp;
      udp.on('message', (message, from) => this.#takeDatagram(udp, message, from));
      const listening = once(udp, 'listening');
      udp.bind(port, at.address);
      await listening;
      // A socket error after binding is about one datagram (an asker that is gone).
      udp.on('error', () => {});
      return { address: at.address, port };
    } catch (cause) {
      this.close();
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new PosternError('ERR_LISTEN_FAILED', `DNS on ${addressText(at)}: ${reason}`, { cause });
    }
  }

  close(): void {
    this.#udp?.close();
    this.#udp = undefined;
    this.#tcp?.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #takeDatagram(udp: UdpSocket, message: Buffer, from: RemoteInfo): void {
    // Nobody can be answered there; the socket would throw.
    if (from.port === 0) return;
    const known = this.#responder.repeat(message);
    if (known === undefined) void this.#answerDatagram(udp, message, from);
    else udp.send(known, from.port, from.address);
  }

  async #answerDatagram(udp: UdpSocket, message: Buffer, from: RemoteInfo): Promise<void> {
    if (this.#inWork >= QUESTIONS_MAX) return;
    this.#inWork += 1;
    try {
      const answer = await this.#responder.respond(message, 'udp');
      if (answer !== undefined && udp === this.#udp) udp.send(answer, from.port, from.address);
    } finally {
      this.#inWork -= 1;
    }
  }

  #accept(socket: Socket): void {
    const reader = new FrameReader();
    /** One piece may hold thousands. */
    const waiting: Buffer[] = [];
    let inWork = 0;
    this.#sockets.add(socket);
    socket.setTimeout(IDLE_TIMEOUT_MS, () => socket.destroy());
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
    const answerOne = async (message: Buffer): Promise<void> => {
      const answer = await this.#responder.respond(message, 'tcp');
      inWork -= 1;
      if (socket.destroyed) return;
      if (answer === undefined || socket.writableLength > UNREAD_MAX_BYTES) socket.destroy();
      else socket.write(frame(answer));
      workOn();
    };
    const workOn = (): void => {
      if (socket.destroyed) return;
      for (; inWork < PIPELINE_MAX && waiting.length > 0; inWork += 1) {
        const message = waiting.shift();
        if (message !== undefined) void answerOne(message);
      }
      if (inWork < PIPELINE_MAX) socket.resume();
      else socket.pause();
    };
    socket.on('data', (chunk) => {
      waiting.push(...reader.push(chunk));
      workOn();
    });
  }
}
