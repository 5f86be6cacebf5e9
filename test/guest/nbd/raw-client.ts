import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import {
  CHUNK_HEADER_BYTES,
  COMMAND,
  GREETING_BYTES,
  IHAVEOPT,
  INFO,
  OPTION,
  OPTION_REPLY,
  OPTION_REPLY_HEADER_BYTES,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
} from '../../../guest/nbd/constants.ts';

export interface OptionAnswer {
  readonly reply: number;
  readonly data: Buffer;
}

export interface Chunk {
  readonly type: number;
  readonly done: boolean;
  readonly data: Buffer;
}

export type Answer =
  | { readonly kind: 'simple'; readonly cookie: bigint; readonly error: number }
  | { readonly kind: 'structured'; readonly cookie: bigint; readonly chunks: readonly Chunk[] };

export interface RequestFields {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: bigint;
  readonly offset?: number | bigint;
  readonly length?: number;
  readonly magic?: number;
}

/** A client that says exactly what a test wants said, and reads replies byte for byte. */
export class RawClient {
  readonly socket: Socket;
  #parts: Buffer[] = [];
  #bytes = 0;
  #ended = false;
  #wake: () => void = () => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => {});
    socket.on('data', (part: Buffer) => {
      this.#parts.push(part);
      this.#bytes += part.length;
      this.#wake();
    });
    for (const event of ['end', 'close']) {
      socket.on(event, () => {
        this.#ended = true;
        this.#wake();
      });
    }
  }

  static async connect(path: string): Promise<RawClient> {
    const socket = connect({ path, allowHalfOpen: true });
    await once(socket, 'connect');
    return new RawClient(socket);
  }

  static over(socket: Socket): RawClient {
    return new RawClient(socket);
  }

  send(...parts: readonly Buffer[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** Rejects when the server closes before that. */
  async read(count: number): Promise<Buffer> {
    while (this.#bytes < count) {
      if (this.#ended) throw new Error(`closed ${count - this.#bytes} bytes early`);
      await this.#more();
    }
    const all = Buffer.concat(this.#parts);
    this.#parts = [all.subarray(count)];
    this.#bytes -= count;
    return all.subarray(0, count);
  }

  /** The bytes until the server closes. */
  async readToEnd(): Promise<Buffer> {
    while (!this.#ended) await this.#more();
    return this.read(this.#bytes);
  }

  #more(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  async hello(flags = 3): Promise<Buffer> {
    const greeting = await this.read(GREETING_BYTES);
    this.send(u32(flags));
    return greeting;
  }

  /** Every reply to one option, up to its ACK or error. */
  async option(option: number, data: Buffer = Buffer.alloc(0)): Promise<OptionAnswer[]> {
    this.send(encodeOption(option, data));
    const answers: OptionAnswer[] = [];
    for (;;) {
      const head = await this.read(OPTION_REPLY_HEADER_BYTES);
      if (head.readUInt32BE(8) !== option) throw new Error(`a reply to option ${head.readUInt32BE(8)}`);
      const reply = head.readUInt32BE(12);
      answers.push({ reply, data: await this.read(head.readUInt32BE(16)) });
      if (reply === OPTION_REPLY.ACK || reply >= 0x80000000) return answers;
    }
  }

  /** Handshake to the transmission phase. Answers what GO said of the export. */
  async go(name = '', mode: { structured?: boolean; allocation?: boolean } = {}): Promise<ExportInfo> {
    await this.hello();
    if (mode.structured === true || mode.allocation === true) await this.option(OPTION.STRUCTURED_REPLY);
    if (mode.allocation === true) {
      await this.option(OPTION.SET_META_CONTEXT, contextData(name, ['base:allocation']));
    }
    const answers = await this.option(OPTION.GO, infoData(name));
    const info = answers.find(({ data }) => data.length === 12 && data.readUInt16BE() === INFO.EXPORT)?.data;
    if (info === undefined) throw new Error(`GO was refused: ${answers.at(-1)?.data.toString()}`);
    return { sizeBytes: Number(info.readBigUInt64BE(2)), flags: info.readUInt16BE(10) };
  }

  request(fields: RequestFields, payload: Buffer = Buffer.alloc(0)): void {
    this.send(encodeRequest(fields), payload);
  }

  /** The next reply. `dataBytes`: what follows a simple reply without an error. */
  async answer(dataBytes = 0): Promise<Answer & { readonly data: Buffer }> {
    const magic = await this.read(4);
    if (magic.readUInt32BE() === SIMPLE_REPLY_MAGIC) {
      const head = await this.read(SIMPLE_REPLY_BYTES - 4);
      const error = head.readUInt32BE();
      const data = error === 0 ? await this.read(dataBytes) : Buffer.alloc(0);
      return { kind: 'simple', error, cookie: head.readBigUInt64BE(4), data };
    }
    const chunks: Chunk[] = [];
    for (let first = true; ; first = false) {
      const head = await this.read(CHUNK_HEADER_BYTES - (first ? 4 : 0));
      const at = first ? 0 : 4;
      const data = await this.read(head.readUInt32BE(at + 12));
      const done = (head.readUInt16BE(at) & 1) !== 0;
      chunks.push({ done, type: head.readUInt16BE(at + 2), data });
      if (done)
        return { kind: 'structured', chunks, cookie: head.readBigUInt64BE(at + 4), data: Buffer.alloc(0) };
    }
  }

  /** One request, and its simple reply's error number. */
  async ask(fields: RequestFields, payload?: Buffer): Promise<number> {
    this.request(fields, payload);
    const answer = await this.answer();
    if (answer.kind === 'simple') return answer.error;
    return answer.chunks.at(-1)?.type === 0x8001 ? (answer.chunks.at(-1)?.data.readUInt32BE() ?? -1) : 0;
  }

  disconnect(): void {
    this.request({ type: COMMAND.DISC });
    this.socket.end();
  }
}

export interface ExportInfo {
  readonly sizeBytes: number;
  readonly flags: number;
}

export function encodeOption(option: number, data: Buffer, length = data.length): Buffer {
  const head = Buffer.alloc(16);
  head.writeBigUInt64BE(IHAVEOPT, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(length, 12);
  return Buffer.concat([head, data]);
}

export function encodeRequest(fields: RequestFields): Buffer {
  const bytes = Buffer.alloc(REQUEST_BYTES);
  bytes.writeUInt32BE(fields.magic ?? REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(fields.flags ?? 0, 4);
  bytes.writeUInt16BE(fields.type, 6);
  bytes.writeBigUInt64BE(fields.cookie ?? 0n, 8);
  bytes.writeBigUInt64BE(BigInt(fields.offset ?? 0), 16);
  bytes.writeUInt32BE(fields.length ?? 0, 24);
  return bytes;
}

export function infoData(name: string, requests: readonly number[] = []): Buffer {
  const list = requests.map((type) => u16(type));
  return Buffer.concat([u32(Buffer.byteLength(name)), Buffer.from(name), u16(requests.length), ...list]);
}

export function contextData(name: string, queries: readonly string[]): Buffer {
  const list = queries.flatMap((query) => [u32(Buffer.byteLength(query)), Buffer.from(query)]);
  return Buffer.concat([u32(Buffer.byteLength(name)), Buffer.from(name), u32(queries.length), ...list]);
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
