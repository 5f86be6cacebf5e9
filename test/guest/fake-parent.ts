import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Flow } from '../../shared/flow/flow.ts';
import { startFlow } from '../../shared/flow/splice.ts';
import { ControlChannel } from '../../shared/session/channel.ts';
import { connectStream, listenStream } from '../../shared/transport/connect.ts';
import type { Listener, Stream } from '../../shared/transport/transport.ts';
import {
  CAPABILITIES,
  type ControlFrame,
  decodeHello,
  encodeFrame,
  type Hello,
} from '../../shared/wire/control.ts';
import type { Endpoint } from '../../shared/wire/endpoint.ts';
import {
  decodeStreamHeader,
  encodeStreamHeader,
  HEADER_BYTES,
  proofHolds,
} from '../../shared/wire/header.ts';
import { decodeTcpOpen, encodeInboundOpen, type TcpOpen } from '../../shared/wire/open.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { decodeReply, encodeReply, REPLY_BYTES, type ReplyStatus } from '../../shared/wire/reply.ts';

const TIMEOUT_MS = 5_000;

export interface SeenOpen extends TcpOpen {
  readonly flowId: number;
  readonly proven: boolean;
}

/** A folder for sockets and keys of one test; the caller removes it with `remove`. */
export async function scratch(): Promise<{ folder: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-guest-'));
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) };
}

/**
 * The parent's side of the protocol, played by hand over a unix socket. Destinations are made up: `route` says which
 * local port stands for an address and port. Every step can be replaced by a lie.
 */
export class FakeParent {
  readonly path: string;
  readonly hellos: Hello[] = [];
  readonly opens: SeenOpen[] = [];
  readonly frames: ControlFrame[] = [];
  channel: ControlChannel | undefined;
  control: Stream | undefined;
  keepAliveMs = 10_000;
  /** What WELCOME says: TCP and inbound flows. */
  capabilities = CAPABILITIES.tcp | CAPABILITIES.inbound;
  /** Replaces the answer to HELLO. */
  onHello: ((stream: Stream, hello: Hello) => void) | undefined;
  /** Replaces the answer to OPEN. */
  onOpen: ((stream: Stream, open: SeenOpen) => void) | undefined;
  /** Takes the udp streams; without it they are refused. */
  onAssociation: ((stream: Stream) => void) | undefined;
  associationCount = 0;
  readonly #routes = new Map<string, number>();
  readonly #flows = new Map<number, Flow>();
  readonly #streams = new Set<Stream>();
  #listener: Listener | undefined;
  #nextInboundId = 1;

  constructor(folder: string) {
    this.path = join(folder, 'parent.sock');
  }

  async listen(): Promise<void> {
    this.#listener = await listenStream({ kind: 'unix', path: this.path }, (stream) => {
      this.#streams.add(stream);
      stream.on('error', () => {});
      this.#serve(stream).catch(() => stream.destroy());
    });
  }

  /** As when its process dies: nobody listens, all streams end. */
  async close(): Promise<void> {
    this.channel?.close('the test closes the parent');
    for (const stream of this.#streams) stream.destroy();
    this.#streams.clear();
    await this.#listener?.close();
  }

  route(address: string, port: number, server: Server | number): void {
    const bound = typeof server === 'number' ? server : server.address();
    const localPort = typeof bound === 'object' && bound !== null ? bound.port : Number(bound);
    this.#routes.set(`${address} ${port}`, localPort);
  }

  async #serve(stream: Stream): Promise<void> {
    const header = await readExactly(stream, HEADER_BYTES, TIMEOUT_MS);
    const { kind, flowId, bodyLength } = decodeStreamHeader(header);
    const body = await readExactly(stream, bodyLength, TIMEOUT_MS);
    if (kind === 'control') return this.#register(stream, decodeHello(body));
    const key = this.hellos.at(-1)?.key;
    if (kind === 'udp') return this.#associate(stream);
    const open = {
      ...decodeTcpOpen(body),
      flowId,
      proven: key !== undefined && proofHolds(key, header, body),
    };
    this.opens.push(open);
    if (this.onOpen !== undefined) this.onOpen(stream, open);
    else this.connect(stream, open);
  }

  #associate(stream: Stream): void {
    this.associationCount += 1;
    if (this.onAssociation === undefined) this.refuse(stream, 'malformed');
    else this.onAssociation(stream);
  }

  #register(stream: Stream, hello: Hello): void {
    this.hellos.push(hello);
    if (this.onHello !== undefined) this.onHello(stream, hello);
    else this.welcome(stream);
  }

  welcome(stream: Stream): void {
    const { keepAliveMs, capabilities } = this;
    this.control = stream;
    stream.write(encodeFrame({ type: 'welcome', version: 1, capabilities, keepAliveMs }));
    this.channel = new ControlChannel(stream, {
      keepAliveMs,
      onFrame: (frame) => {
        this.frames.push(frame);
        if (frame.type === 'reset') this.#flows.get(frame.flowId)?.abort('reset-peer');
      },
      onLost: () => {},
    });
  }

  /** The honest answer: connect the first address that has a route. */
  connect(stream: Stream, open: SeenOpen): void {
    const index = open.addresses.findIndex((address) => this.#routes.has(`${address} ${open.port}`));
    const port = this.#routes.get(`${open.addresses[index]} ${open.port}`);
    if (port === undefined) {
      this.refuse(stream, 'refused');
      return;
    }
    const local = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    local.once('error', () => this.refuse(stream, 'refused'));
    local.once('connect', () => {
      stream.write(encodeReply('ok', index));
      this.splice(local, stream, open.flowId);
    });
  }

  splice(local: Socket, stream: Stream, flowId: number): void {
    const sendReset = (): void => this.channel?.send({ type: 'reset', flowId });
    const onDone = (): void => void this.#flows.delete(flowId);
    this.#flows.set(flowId, startFlow(local, stream, { sendReset, onDone }));
  }

  refuse(stream: Stream, status: ReplyStatus): void {
    stream.end(encodeReply(status));
  }

  /** Opens an inbound stream to the agent at `path`; resolves with its reply. */
  async openInbound(
    path: string,
    servicePort: number,
    options: { key?: Buffer; client?: Endpoint; flowId?: number } = {},
  ): Promise<{ stream: Stream; status: ReplyStatus }> {
    const key = options.key ?? this.hellos.at(-1)?.key ?? Buffer.alloc(32);
    const client = options.client ?? { address: '203.0.113.7', port: 40_000 };
    const body = encodeInboundOpen({ servicePort, client, local: { address: '198.51.100.1', port: 443 } });
    const flowId = options.flowId ?? this.#nextInboundId;
    this.#nextInboundId += 2;
    const stream = await connectStream({ kind: 'unix', path });
    this.#streams.add(stream);
    stream.on('error', () => {});
    stream.write(encodeStreamHeader('inbound', flowId, body, key));
    const { status } = decodeReply(await readExactly(stream, REPLY_BYTES, TIMEOUT_MS));
    return { stream, status };
  }
}
