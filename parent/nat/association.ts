import type { RemoteInfo } from 'node:dgram';
import { isPosternError } from '../../shared/errors.ts';
import { formatAddress, parseAddress } from '../../shared/policy/address.ts';
import type { Denied } from '../../shared/policy/decide.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { UdpPort } from '../../shared/udp/port.ts';
import {
  DATAGRAM_MAX_BYTES,
  encodeClose,
  encodeDatagram,
  encodeUndelivered,
  type UdpFrame,
  UdpFrameDecoder,
} from '../../shared/wire/datagram.ts';
import type { Endpoint } from '../../shared/wire/endpoint.ts';
import type { ReplyStatus } from '../../shared/wire/reply.ts';
import type { Audit } from '../audit.ts';
import { failureOfErrno } from '../egress/errno.ts';
import type { Guest } from '../guest/guest.ts';
import { TokenBucket } from '../guest/rate.ts';
import type { DropReason } from './counts.ts';

/** RFC 4787 section 4.3 asks for two minutes at least; only what the guest sends counts, so that no outsider keeps it open. */
export const ASSOCIATION_IDLE_MS = 120_000;
/** Datagrams for a guest that does not read are dropped past this: room for one of the largest behind another. */
export const GUEST_QUEUE_MAX_BYTES = 64 * 1024;
/** Addresses that may answer; past it the one sent to longest ago may not any more. A resolver has one, a peer-to-peer program hundreds. */
export const REMOTES_MAX = 1024;
/** What the guest is told of datagrams that were not sent: advice, so a flood of them is not worth its bytes. */
export const UNDELIVERED_PER_SECOND = 100;

/** Frames of one association before the others of the loop get their turn: some three milliseconds. */
const TURN_FRAMES = 256;

/** How an association ended. gone: the guest closed it, or its session is over. */
export type AssociationEnd = 'idle' | 'malformed' | 'gone';
const CLOSE_STATUS = { idle: 'timeout', malformed: 'malformed' } as const;

export interface AssociationOptions {
  readonly guest: Guest;
  readonly stream: Stream;
  readonly audit: Audit;
  readonly idleMs: number;
  /** Called once; nothing is open any more. */
  onDone(end: AssociationEnd): void;
}

/** One association (datagram.md): a stream of the guest, and up to two UDP ports of this host. Owns the stream. */
export class Association {
  readonly #options: AssociationOptions;
  readonly #decoder = new UdpFrameDecoder();
  /** By the address that each is bound to: all of its family. */
  readonly #ports = new Map<'0.0.0.0' | '::', UdpPort>();
  /** Addresses that were sent to, the latest last. */
  readonly #remotes = new Set<string>();
  readonly #advice = new TokenBucket(UNDELIVERED_PER_SECOND);
  #sentAt = performance.now();
  #idle: NodeJS.Timeout;
  #pause: NodeJS.Timeout | undefined;
  #done = false;

  constructor(options: AssociationOptions) {
    const { stream, idleMs } = options;
    this.#options = options;
    this.#idle = setTimeout(() => this.#checkIdle(), idleMs);
    const gone = (): void => this.#end('gone');
    stream.on('data', (piece: Buffer) => this.#receive(piece));
    stream.on('end', gone).on('close', gone);
  }

  /** The guest reset it, or its session is over. */
  abort(): void {
    this.#end('gone');
  }

  #receive(piece: Buffer): void {
    if (this.#done) return;
    const owedMs = this.#options.guest.usage.limiter?.take(piece.length) ?? 0;
    this.#serve(this.#decoder.read(piece), owedMs);
  }

  /**
   * What the guest sends over its quotas, or faster than it is served, waits in the guest: its stream is not read. Nor are
   * the frames of a piece before their turn: six thousand fit into one, and to read them takes time too.
   */
  #serve(frames: Iterator<UdpFrame | undefined>, owedMs: number): void {
    if (this.#done) return;
    const { stream, guest } = this.#options;
    const count = this.#takeTurn(frames);
    const waitMs = Math.max(owedMs, guest.usage.datagrams.take(count));
    const isLast = count < TURN_FRAMES;
    if (this.#done) return;
    const goOn = (): void => {
      if (isLast) stream.resume();
      else this.#serve(frames, 0);
    };
    if (isLast && waitMs === 0) {
      goOn();
      return;
    }
    stream.pause();
    if (waitMs === 0) setImmediate(goOn);
    else this.#pause = setTimeout(goOn, waitMs);
  }

  /** How many frames there were, skipped ones among them; TURN_FRAMES where there may be more. */
  #takeTurn(frames: Iterator<UdpFrame | undefined>): number {
    let count = 0;
    try {
      for (let next = frames.next(); next.done !== true; next = frames.next()) {
        count += 1;
        if (next.value !== undefined) this.#take(next.value);
        if (count === TURN_FRAMES || this.#done) break;
      }
    } catch (error) {
      if (!isPosternError(error)) throw error;
      this.#violated(error.message);
    }
    return count;
  }

  #take(frame: UdpFrame): void {
    if (frame.type === 'datagram') this.#send(frame.remote, frame.payload);
    else this.#violated(`a frame of type ${frame.type} from a guest`);
  }

  #send(remote: Endpoint, payload: Buffer): void {
    const { guest } = this.#options;
    this.#sentAt = performance.now();
    const decision = guest.guard.decide('udp', remote.address, remote.port);
    if (decision.verdict === 'deny') {
      this.#sayDenied(remote, decision);
      this.#undelivered(remote, 'denied', 'denied');
      return;
    }
    const address = decision.address ?? remote.address;
    const onFailed = (errno: string | undefined): void =>
      this.#undelivered(remote, failureOfErrno(errno), 'failed');
    const port = this.#portFor(address, onFailed);
    if (port === undefined) return;
    this.#remember(address);
    // What the kernel refuses is known later: it counts as sent and as failed.
    if (port.send(payload, address, remote.port, onFailed)) {
      guest.datagrams.out += 1;
      guest.datagrams.outBytes += payload.length;
    } else this.#drop('network-slow');
  }

  #sayDenied(remote: Endpoint, { reason, rule, special }: Denied): void {
    const { audit, guest } = this.#options;
    const details = { event: 'flow.refused', ...remote, protocol: 'udp', reason, rule, special };
    audit.say(guest.name, `guard udp ${remote.address} ${remote.port}`, 'destination refused', details);
  }

  /** Undefined when there is none to be had, which `onFailed` has been told; the next datagram tries again. */
  #portFor(address: string, onFailed: (errno: string | undefined) => void): UdpPort | undefined {
    const all = address.includes(':') ? '::' : '0.0.0.0';
    const known = this.#ports.get(all);
    if (known !== undefined) return known;
    const port = new UdpPort(all, {
      onDatagram: (payload, from) => this.#deliver(payload, from),
      onFailed: () => this.#ports.delete(all),
    });
    if (port.failure !== undefined) {
      onFailed(port.failure);
      return undefined;
    }
    this.#ports.set(all, port);
    return port;
  }

  #remember(address: string): void {
    this.#remotes.delete(address);
    this.#remotes.add(address);
    if (this.#remotes.size <= REMOTES_MAX) return;
    const [oldest] = this.#remotes;
    if (oldest !== undefined) this.#remotes.delete(oldest);
  }

  #deliver(payload: Buffer, from: RemoteInfo): void {
    const { stream, guest } = this.#options;
    // A zone (fe80::1%eth0) is this host's; an address that has one was not sent to.
    const parsed = parseAddress(from.address);
    const address = parsed === undefined ? '' : formatAddress(parsed);
    const reason = this.#whyNot(address, from.port, payload.length);
    if (reason !== undefined) {
      this.#drop(reason);
      return;
    }
    guest.datagrams.in += 1;
    guest.datagrams.inBytes += payload.length;
    stream.write(encodeDatagram({ address, port: from.port }, payload));
  }

  /** Why a datagram from outside is dropped, if it is. */
  #whyNot(address: string, port: number, byteCount: number): DropReason | undefined {
    const { stream, guest } = this.#options;
    const { limiter, datagrams } = guest.usage;
    // Port 0 cannot be answered, and a frame cannot name it.
    if (!this.#remotes.has(address) || port === 0 || byteCount > DATAGRAM_MAX_BYTES) return 'filtered';
    if (stream.writableLength > GUEST_QUEUE_MAX_BYTES) return 'guest-slow';
    const withinRate = datagrams.trySpend(1) && limiter?.trySpend(byteCount) !== false;
    return withinRate ? undefined : 'rate';
  }

  #undelivered(remote: Endpoint, status: ReplyStatus, reason: DropReason): void {
    this.#drop(reason);
    const { stream } = this.#options;
    if (this.#done || stream.writableLength > GUEST_QUEUE_MAX_BYTES || !this.#advice.tryTake()) return;
    stream.write(encodeUndelivered(remote, status));
  }

  #drop(reason: DropReason): void {
    this.#options.guest.datagrams.dropped[reason] += 1;
  }

  #violated(detail: string): void {
    const { guest, audit } = this.#options;
    const details = { event: 'association.violation', detail };
    audit.say(guest.name, 'association violation', 'udp stream ended', details);
    this.#end('malformed');
  }

  #checkIdle(): void {
    const leftMs = this.#options.idleMs - (performance.now() - this.#sentAt);
    if (leftMs <= 0) this.#end('idle');
    else this.#idle = setTimeout(() => this.#checkIdle(), leftMs);
  }

  #end(end: AssociationEnd): void {
    if (this.#done) return;
    this.#done = true;
    clearTimeout(this.#idle);
    clearTimeout(this.#pause);
    for (const port of this.#ports.values()) port.close();
    this.#ports.clear();
    const { stream, onDone } = this.#options;
    if (end !== 'gone' && stream.writable) stream.write(encodeClose(CLOSE_STATUS[end]));
    // A guest that does not read is not waited for.
    if (end === 'gone' || stream.writableLength > 0) stream.destroy();
    else stream.destroySoon();
    onDone(end);
  }
}
