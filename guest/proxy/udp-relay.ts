import type { RemoteInfo } from 'node:dgram';
import type { Socket } from 'node:net';
import { isPosternError, PosternError } from '../../shared/errors.ts';
import { UdpPort } from '../../shared/udp/port.ts';
import { DATAGRAM_MAX_BYTES } from '../../shared/wire/datagram.ts';
import type { Endpoint } from '../../shared/wire/endpoint.ts';
import { Association } from '../flow/association.ts';
import { DatagramRoutes } from '../flow/datagram-routes.ts';
import type { Gate } from '../flow/gate.ts';
import { decodeSocksDatagram, encodeSocksDatagram } from './socks5-datagram.ts';

/** Addresses that may answer one client; past it the one sent to longest ago may not any more. */
export const ANSWERING_MAX = 1024;

export interface UdpRelayOptions {
  readonly gate: Gate;
  /** Of the client, and open; the association lives as long as this does (RFC 1928 section 7). */
  readonly control: Socket;
  /** The port that the client says it will send from; 0 where it does not know yet. */
  readonly clientPort: number;
  /** Called once, however it ends. */
  onClosed(relay: UdpRelay): void;
}

/**
 * One UDP ASSOCIATE (RFC 1928 section 7): a loopback port for the client, an association with the parent, and the policy
 * between them, asked for every destination. What comes back is handed on from addresses that were sent to.
 */
export class UdpRelay {
  readonly #options: UdpRelayOptions;
  readonly #routes: DatagramRoutes;
  readonly #answering = new Set<string>();
  readonly #stop = new AbortController();
  readonly #port: UdpPort;
  readonly #clientAddress: string;
  #clientPort: number;
  #association: Association | undefined;
  #opening: Promise<void> | undefined;

  /** Listens at once, on the address that the client came to. */
  constructor(options: UdpRelayOptions) {
    const { gate, control, clientPort } = options;
    const { localAddress = '127.0.0.1', remoteAddress = localAddress } = control;
    this.#options = options;
    this.#clientAddress = remoteAddress;
    this.#clientPort = clientPort;
    this.#routes = new DatagramRoutes(
      (target) => gate.routeDatagrams({ ...target, via: 'socks5', protocol: 'udp' }, this.#stop.signal),
      (remote, payload) => this.#send(remote, payload),
    );
    this.#port = new UdpPort(localAddress, {
      onDatagram: (payload, from) => this.#fromClient(payload, from),
      onFailed: () => this.close(),
    });
    // A paused socket tells of its end too, and once: whoever begins to listen after an await may have missed it.
    control.once('end', () => this.close()).once('close', () => this.close());
  }

  /**
   * Gets an association with the parent. After a throw nothing but the control connection is open.
   * @throws PosternError ERR_FLOW_LIMIT, ERR_SESSION_*, ERR_TRANSPORT_*, ERR_WIRE_*
   */
  async open(): Promise<void> {
    try {
      if (this.#port.failure !== undefined)
        throw new PosternError('ERR_FLOW_LIMIT', `no port for datagrams: ${this.#port.failure}`);
      await this.#associate();
      if (this.#stop.signal.aborted) throw new PosternError('ERR_TRANSPORT_ABORTED', 'the client is gone');
    } catch (error) {
      this.#release();
      throw error;
    }
  }

  /** Where the client is to send its datagrams. */
  get endpoint(): Endpoint {
    return this.#port.endpoint;
  }

  /** Ends all of it, the client's control connection too. */
  close(): void {
    this.#release();
    this.#options.control.destroySoon();
  }

  #release(): void {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    this.#port.close();
    this.#association?.close();
    this.#options.onClosed(this);
  }

  /** One at a time: a client, or whoever guesses its port, may send before it is told that it can. */
  #associate(): Promise<void> {
    this.#opening ??= this.#openAssociation().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #openAssociation(): Promise<void> {
    const tunnel = await this.#options.gate.associate('socks5', this.#stop.signal);
    const association = new Association(tunnel, {
      onDatagram: (remote, payload) => this.#fromParent(remote, payload),
      onUndelivered: (remote, status) => {
        if (status === 'unreachable') this.#routes.unreachable(remote);
      },
      onClosed: (reason) => this.#lost(reason),
    });
    if (this.#stop.signal.aborted) association.close();
    else this.#association = association;
  }

  /** An association that was idle is opened again with the next datagram; any other end is the client's too. */
  #lost({ code }: PosternError): void {
    this.#association = undefined;
    if (code !== 'ERR_FLOW_TIMEOUT') this.close();
  }

  #fromClient(payload: Buffer, from: RemoteInfo): void {
    if (from.address !== this.#clientAddress) return;
    const datagram = decodeSocksDatagram(payload);
    if (datagram === undefined) return;
    if (this.#clientPort === 0) this.#clientPort = from.port;
    if (from.port !== this.#clientPort) return;
    this.#routes.take(datagram, datagram.payload);
  }

  #send(remote: Endpoint, payload: Buffer): void {
    if (this.#stop.signal.aborted) return;
    if (this.#association === undefined) {
      if (this.#opening === undefined) void this.#reopen(remote, Buffer.from(payload));
      return;
    }
    this.#answering.delete(remote.address);
    this.#answering.add(remote.address);
    const [oldest] = this.#answering;
    if (this.#answering.size > ANSWERING_MAX && oldest !== undefined) this.#answering.delete(oldest);
    this.#association.send(remote, payload);
  }

  /** For the datagram that wants it; others that come meanwhile are lost, as they may be. */
  async #reopen(remote: Endpoint, payload: Buffer): Promise<void> {
    try {
      await this.#associate();
      if (this.#association !== undefined) this.#send(remote, payload);
    } catch (error) {
      if (!isPosternError(error)) throw error;
      this.close();
    }
  }

  #fromParent(remote: Endpoint, payload: Buffer): void {
    if (this.#clientPort === 0 || !this.#answering.has(remote.address)) return;
    const bytes = encodeSocksDatagram(remote, payload);
    if (bytes.length > DATAGRAM_MAX_BYTES) return;
    this.#port.send(bytes, this.#clientAddress, this.#clientPort, () => {});
  }
}
