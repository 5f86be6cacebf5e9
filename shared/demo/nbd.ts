import { PosternError } from '../errors.ts';
import { connectStream } from '../transport/connect.ts';
import type { Stream } from '../transport/transport.ts';
import { readExactly } from '../wire/read.ts';

/** The NBD protocol document: newstyle negotiation by EXPORT_NAME, then simple replies. */
const IHAVEOPT = 0x49484156454f5054n;
const OPTION_EXPORT_NAME = 1;
const FIXED_NEWSTYLE_NO_ZEROES = 3;
const REQUEST_MAGIC = 0x25609513;
const COMMAND = { read: 0, write: 1, flush: 3 } as const;
const GREETING_BYTES = 18;
const EXPORT_BYTES = 10;
const REPLY_BYTES = 16;
const TIMEOUT_MS = 10_000;

/** As much of an NBD client as a demo needs: one request after the other. */
export class DemoDisk {
  readonly #stream: Stream;

  private constructor(stream: Stream) {
    this.#stream = stream;
  }

  static async open(path: string, name: string): Promise<DemoDisk> {
    const stream = await connectStream({ kind: 'unix', path });
    stream.on('error', () => {});
    await readExactly(stream, GREETING_BYTES, TIMEOUT_MS);
    const option = Buffer.alloc(20);
    option.writeUInt32BE(FIXED_NEWSTYLE_NO_ZEROES, 0);
    option.writeBigUInt64BE(IHAVEOPT, 4);
    option.writeUInt32BE(OPTION_EXPORT_NAME, 12);
    option.writeUInt32BE(Buffer.byteLength(name), 16);
    stream.write(Buffer.concat([option, Buffer.from(name)]));
    await readExactly(stream, EXPORT_BYTES, TIMEOUT_MS);
    return new DemoDisk(stream);
  }

  async write(offset: number, bytes: Buffer): Promise<void> {
    await this.#ask('write', offset, bytes.length, bytes);
  }

  async flush(): Promise<void> {
    await this.#ask('flush', 0, 0);
  }

  async read(offset: number, length: number): Promise<Buffer> {
    await this.#ask('read', offset, length);
    return readExactly(this.#stream, length, TIMEOUT_MS);
  }

  close(): void {
    this.#stream.destroy();
  }

  async #ask(
    command: keyof typeof COMMAND,
    offset: number,
    length: number,
    payload: Buffer = Buffer.alloc(0),
  ): Promise<void> {
    const request = Buffer.alloc(28);
    request.writeUInt32BE(REQUEST_MAGIC, 0);
    request.writeUInt16BE(COMMAND[command], 6);
    request.writeBigUInt64BE(BigInt(offset), 16);
    request.writeUInt32BE(length, 24);
    this.#stream.write(Buffer.concat([request, payload]));
    const error = (await readExactly(this.#stream, REPLY_BYTES, TIMEOUT_MS)).readUInt32BE(4);
    if (error !== 0)
      throw new PosternError('ERR_DEMO_FAILED', `the disk answered ${command} with error ${error}`);
  }
}
