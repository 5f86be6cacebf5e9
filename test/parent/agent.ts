import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import type { TransportAddress } from '../../shared/transport/address.ts';
import { connectStream, listenStream } from '../../shared/transport/connect.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import {
  CAPABILITIES,
  type ControlFrame,
  encodeFrame,
  encodeHello,
  FrameDecoder,
} from '../../shared/wire/control.ts';
import {
  decodeStreamHeader,
  encodeStreamHeader,
  HEADER_BYTES,
  KEY_BYTES,
  proofHolds,
} from '../../shared/wire/header.ts';
import { decodeInboundOpen, encodeTcpOpen, type InboundOpen, type TcpOpen } from '../../shared/wire/open.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { decodeReply, REPLY_BYTES, type Reply } from '../../shared/wire/reply.ts';

const DEADLINE_MS = 10_000;

/** The header and HELLO of an agent that tells the truth. */
export function helloBytes(
  key: Buffer,
  overrides: { minVersion?: number; maxVersion?: number } = {},
): Buffer {
  const capabilities = CAPABILITIES.tcp | CAPABILITIES.inbound | CAPABILITIES.udp;
  const hello = { minVersion: 1, maxVersion: 1, capabilities, key, agent: 'test/1', ...overrides };
  return encodeStreamHeader('control', 0, encodeHello(hello), key);
}

/** A guest, by hand: the wire codecs and nothing else, so that it can also lie. */
export class TestAgent {
  readonly key: Buffer;
  readonly address: TransportAddress;
  readonly frames: ControlFrame[] = [];
  readonly control: Stream;
  #nextFlowId = 2;

  private constructor(address: TransportAddress, key: Buffer, control: Stream) {
    this.address = address;
    this.key = key;
    this.control = control;
  }

  /** Registers and waits for WELCOME. */
  static async register(address: TransportAddress, key: Buffer = randomBytes(KEY_BYTES)): Promise<TestAgent> {
    const control = await connect(address);
    const agent = new TestAgent(address, key, control);
    const decoder = new FrameDecoder();
    control.on('data', (piece: Buffer) => {
      for (const frame of decoder.push(piece)) {
        agent.frames.push(frame);
        if (frame.type === 'ping') agent.send({ type: 'pong', token: frame.token });
        control.emit('frame', frame);
      }
    });
    control.on('end', () => control.emit('frame'));
    control.write(helloBytes(key));
    await agent.frame('welcome');
    return agent;
  }

  send(frame: ControlFrame): void {
    this.control.write(encodeFrame(frame));
  }

  /** The first frame of this type, now or later. */
  async frame<T extends ControlFrame['type']>(type: T): Promise<Extract<ControlFrame, { type: T }>> {
    for (;;) {
      const found = this.frames.find((frame) => frame.type === type);
      if (found !== undefined) return found as Extract<ControlFrame, { type: T }>;
      if (this.control.readableEnded) throw new Error(`the control stream ended before a ${type}`);
      await once(this.control, 'frame', { signal: AbortSignal.timeout(DEADLINE_MS) });
    }
  }

  takeFlowId(): number {
    const flowId = this.#nextFlowId;
    this.#nextFlowId += 2;
    return flowId;
  }

  openBytes(open: TcpOpen, flowId = this.takeFlowId()): Buffer {
    return encodeStreamHeader('tcp', flowId, encodeTcpOpen(open), this.key);
  }

  /** Opens a flow; `early` is sent right behind the OPEN. The reply is not read. */
  async start(open: TcpOpen, early: Buffer = Buffer.alloc(0), flowId?: number): Promise<Stream> {
    const stream = await connect(this.address);
    stream.write(Buffer.concat([this.openBytes(open, flowId), early]));
    return stream;
  }

  /** Opens a flow and reads its reply. */
  async open(port: number, addresses: readonly string[] = ['127.0.0.1'], early?: Buffer) {
    const stream = await this.start({ port, addresses }, early);
    return { stream, reply: await readReply(stream) };
  }

  /** Opens an association and reads its reply. */
  async associate(flowId = this.takeFlowId(), body = Buffer.alloc(0)) {
    const stream = await connect(this.address);
    stream.write(encodeStreamHeader('udp', flowId, body, this.key));
    return { stream, reply: await readReply(stream) };
  }

  /** Takes the parent's inbound streams, and checks their proof, as an agent must. */
  async serveInbound(
    t: TestContext,
    address: TransportAddress,
    take: (inbound: Inbound) => void,
  ): Promise<void> {
    const listener = await listenStream(address, (stream) => {
      stream.on('error', () => {});
      void this.#readInbound(stream).then(take);
    });
    t.after(() => listener.close());
  }

  async #readInbound(stream: Stream): Promise<Inbound> {
    const header = await readExactly(stream, HEADER_BYTES, DEADLINE_MS);
    const { kind, flowId, bodyLength } = decodeStreamHeader(header);
    const body = await readExactly(stream, bodyLength, DEADLINE_MS);
    assert.equal(kind, 'inbound');
    assert.equal(flowId % 2, 1);
    assert.ok(proofHolds(this.key, header, body));
    return { stream, flowId, open: decodeInboundOpen(body) };
  }

  close(): void {
    this.control.destroy();
  }
}

export interface Inbound {
  readonly stream: Stream;
  readonly flowId: number;
  readonly open: InboundOpen;
}

export async function connect(address: TransportAddress): Promise<Stream> {
  const stream = await connectStream(address);
  stream.on('error', () => {});
  return stream;
}

export async function readReply(stream: Stream): Promise<Reply> {
  return decodeReply(await readExactly(stream, REPLY_BYTES, DEADLINE_MS));
}

/** Everything until the peer ends its direction, or closes. */
export async function readAll(stream: Stream | import('node:net').Socket): Promise<Buffer> {
  const pieces: Buffer[] = [];
  stream.on('data', (piece: Buffer) => pieces.push(piece));
  await new Promise<void>((resolve) => {
    stream.once('end', resolve).once('close', () => resolve());
  });
  return Buffer.concat(pieces);
}

/** Until the peer has ended or closed the stream; what it still sends is thrown away. */
export async function closed(stream: Stream | import('node:net').Socket): Promise<void> {
  stream.resume();
  if (stream.readableEnded || stream.closed) return;
  await new Promise<void>((resolve) => {
    stream.once('end', resolve).once('close', () => resolve());
  });
}
