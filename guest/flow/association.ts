import { isPosternError, PosternError } from '../../shared/errors.ts';
import { encodeDatagram, type UdpFrame, UdpFrameDecoder } from '../../shared/wire/datagram.ts';
import type { Endpoint } from '../../shared/wire/endpoint.ts';
import { errorOfStatus, type ReplyStatus } from '../../shared/wire/reply.ts';
import type { Tunnel } from './tunnel.ts';

/** Datagrams for a parent that does not read are dropped past this: room for one of the largest behind another. */
export const PARENT_QUEUE_MAX_BYTES = 64 * 1024;

/** What comes from the parent, which may lie: whoever sent to nobody at `remote` drops it. */
export interface AssociationEvents {
  onDatagram(remote: Endpoint, payload: Buffer): void;
  /** A datagram to `remote` was not sent, says the parent. */
  onUndelivered(remote: Endpoint, status: ReplyStatus): void;
  /** Called once, also after `close`: nothing is carried any more. ERR_FLOW_*, ERR_TRANSPORT_*, ERR_WIRE_*. */
  onClosed(reason: PosternError): void;
}

/** Datagrams through the parent: a UDP port of its own there, over a stream that `FlowOpener.associate` gave. */
export class Association {
  readonly #tunnel: Tunnel;
  readonly #events: AssociationEvents;
  readonly #decoder = new UdpFrameDecoder();
  #closed = false;

  /** Takes the tunnel over. */
  constructor(tunnel: Tunnel, events: AssociationEvents) {
    const { stream } = tunnel;
    this.#tunnel = tunnel;
    this.#events = events;
    const lost = (): void =>
      this.#end(new PosternError('ERR_TRANSPORT_CLOSED', 'the parent ended the association'));
    stream.on('data', (piece: Buffer) => this.#receive(piece));
    stream.on('end', lost).on('close', lost);
    // Its end may have come behind the reply, before anybody listened.
    if (stream.readableEnded || stream.destroyed) process.nextTick(lost);
  }

  get live(): boolean {
    return !this.#closed;
  }

  /** False: dropped, as the parent does not read, or the association is over. Payloads have DATAGRAM_MAX_BYTES at most. */
  send(remote: Endpoint, payload: Buffer): boolean {
    const { stream } = this.#tunnel;
    if (this.#closed || !stream.writable || stream.writableLength > PARENT_QUEUE_MAX_BYTES) return false;
    stream.write(encodeDatagram(remote, payload));
    return true;
  }

  close(): void {
    this.#end(new PosternError('ERR_TRANSPORT_ABORTED', 'the association was closed'));
  }

  #receive(piece: Buffer): void {
    if (this.#closed) return;
    try {
      for (const frame of this.#decoder.push(piece)) this.#take(frame);
    } catch (error) {
      if (!isPosternError(error)) throw error;
      this.#end(error);
    }
  }

  #take(frame: UdpFrame): void {
    if (this.#closed) return;
    if (frame.type === 'datagram') this.#events.onDatagram(frame.remote, frame.payload);
    else if (frame.type === 'undelivered') this.#events.onUndelivered(frame.remote, frame.status);
    else if (frame.status !== 'ok')
      this.#end(errorOfStatus(frame.status, `the parent ended the association: ${frame.status}`));
  }

  #end(reason: PosternError): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#tunnel.stream.destroy();
    this.#events.onClosed(reason);
  }
}
