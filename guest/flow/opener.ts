import { PosternError } from '../../shared/errors.ts';
import type { FlowEnd } from '../../shared/flow/flow.ts';
import type { TransportAddress } from '../../shared/transport/address.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import { CAPABILITIES } from '../../shared/wire/control.ts';
import { encodeStreamHeader } from '../../shared/wire/header.ts';
import { encodeTcpOpen, OPEN_MAX_ADDRESSES } from '../../shared/wire/open.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { decodeReply, errorOfStatus, REPLY_BYTES } from '../../shared/wire/reply.ts';
import type { LiveSession, SessionClient } from '../session/client.ts';
import type { FlowLabels, FlowTable } from './flow-table.ts';
import { Tunnel } from './tunnel.ts';

/** A session that is just coming back is worth this wait; an application would rather hear of an outage than hang. */
export const SESSION_WAIT_MS = 2_000;
/** The parent's own dial takes less; past this it is taken for one that never answers. */
export const OPEN_REPLY_TIMEOUT_MS = 45_000;

/** The parent counts, and waits for nothing. */
const ASSOCIATE_REPLY_TIMEOUT_MS = 5_000;

export interface FlowOpenerOptions {
  readonly parent: TransportAddress;
  readonly session: SessionClient;
  readonly table: FlowTable;
  readonly sessionWaitMs?: number;
  readonly replyTimeoutMs?: number;
  /** Called when the destination is connected. */
  onOpen(tunnel: Tunnel): void;
  /** Called once, when the flow is over, or did not come about (its labels have no address then). */
  onDone(tunnel: Tunnel, end: FlowEnd): void;
}

/** Opens flows through the parent. The policy has been asked before: see judge.ts. */
export class FlowOpener {
  readonly #options: FlowOpenerOptions;

  constructor(options: FlowOpenerOptions) {
    this.#options = options;
  }

  /** Whether the parent is there at the moment. */
  get hasSession(): boolean {
    return this.#options.session.current !== undefined;
  }

  /**
   * A TCP flow to the first of `addresses` (1 to OPEN_MAX_ADDRESSES, preferred first) that answers. Nothing of the
   * payload is sent before the parent's answer, so a refused flow has carried no data.
   * @throws PosternError ERR_FLOW_*, ERR_SESSION_*, ERR_TRANSPORT_*, ERR_WIRE_*; ERR_TRANSPORT_ABORTED on `signal`.
   */
  async open(addresses: readonly string[], labels: FlowLabels, signal?: AbortSignal): Promise<Tunnel> {
    const offered = addresses.slice(0, OPEN_MAX_ADDRESSES);
    const body = encodeTcpOpen({ port: labels.port, addresses: offered });
    return this.#openStream('tcp', body, labels, signal, async (tunnel) => {
      tunnel.address = await this.#answer(tunnel, addresses);
    });
  }

  /**
   * A stream for datagrams (datagram.md), which the caller reads and writes. Its label is `*` where it has no one address.
   * @throws PosternError as `open`; ERR_WIRE_VERSION when the parent carries none.
   */
  associate(labels: FlowLabels, signal?: AbortSignal): Promise<Tunnel> {
    const { address = '*', ...others } = labels;
    return this.#openStream('udp', Buffer.alloc(0), others, signal, async (tunnel) => {
      const reply = await readExactly(tunnel.stream, REPLY_BYTES, ASSOCIATE_REPLY_TIMEOUT_MS);
      const { status } = decodeReply(reply);
      if (status !== 'ok') throw errorOfStatus(status, `the parent answered ${status} for an association`);
      tunnel.address = address;
    });
  }

  async #openStream(
    kind: 'tcp' | 'udp',
    body: Buffer,
    labels: FlowLabels,
    signal: AbortSignal | undefined,
    answered: (tunnel: Tunnel) => Promise<void>,
  ): Promise<Tunnel> {
    const { session, parent, sessionWaitMs } = this.#options;
    const live = await session.ready(sessionWaitMs ?? SESSION_WAIT_MS, signal);
    assertNotAborted(signal);
    assertOffered(live, kind);
    const stream = await connectStream(parent, signal === undefined ? {} : { signal });
    const tunnel = this.#begin(live, stream, labels);
    const onAbort = (): void => tunnel.cancel();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      stream.write(encodeStreamHeader(kind, tunnel.flowId, body, live.key));
      await answered(tunnel);
      this.#options.onOpen(tunnel);
      return tunnel;
    } catch (error) {
      stream.destroy();
      assertNotAborted(signal);
      if (!live.live) throw new PosternError('ERR_SESSION_LOST', 'the session ended', { cause: error });
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #begin(session: LiveSession, stream: Tunnel['stream'], labels: FlowLabels): Tunnel {
    const { table, onDone } = this.#options;
    return new Tunnel({ flowId: table.takeId(), labels, stream, session, table, onDone });
  }

  /** The address that was connected. */
  async #answer({ stream, labels }: Tunnel, addresses: readonly string[]): Promise<string> {
    const timeoutMs = this.#options.replyTimeoutMs ?? OPEN_REPLY_TIMEOUT_MS;
    const { status, addressIndex } = decodeReply(await readExactly(stream, REPLY_BYTES, timeoutMs));
    if (status !== 'ok') {
      throw errorOfStatus(
        status,
        `the parent answered ${status} for ${addresses.join(', ')} port ${labels.port}`,
      );
    }
    const address = addresses[addressIndex];
    if (address === undefined) {
      throw new PosternError(
        'ERR_WIRE_MALFORMED',
        `the parent connected address ${addressIndex} of ${addresses.length}`,
      );
    }
    return address;
  }
}

function assertOffered({ welcome }: LiveSession, kind: 'tcp' | 'udp'): void {
  // Of TCP every parent speaks; it is what there was first.
  if (kind === 'tcp' || (welcome.capabilities & CAPABILITIES.udp) !== 0) return;
  throw new PosternError('ERR_WIRE_VERSION', 'this parent carries no datagrams; update it');
}

function assertNotAborted(signal?: AbortSignal): void {
  if (signal?.aborted) throw new PosternError('ERR_TRANSPORT_ABORTED', 'the application gave up');
}
