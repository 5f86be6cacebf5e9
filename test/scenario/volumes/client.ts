import assert from 'node:assert/strict';
import { COMMAND } from '../../../guest/nbd/constants.ts';
import { RawClient } from '../../guest/nbd/raw-client.ts';

/** Reads, writes and flushes one after the other, as a file system's journal does. */
export class DiskClient {
  readonly #client: RawClient;
  readonly sizeBytes: number;

  private constructor(client: RawClient, sizeBytes: number) {
    this.#client = client;
    this.sizeBytes = sizeBytes;
  }

  static async connect(path: string, name = ''): Promise<DiskClient> {
    const client = await RawClient.connect(path);
    const { sizeBytes } = await client.go(name);
    return new DiskClient(client, sizeBytes);
  }

  async write(offset: number, bytes: Buffer): Promise<void> {
    const error = await this.#client.ask({ type: COMMAND.WRITE, offset, length: bytes.length }, bytes);
    assert.equal(error, 0, `WRITE failed with ${error}`);
  }

  async flush(): Promise<void> {
    const error = await this.#client.ask({ type: COMMAND.FLUSH });
    assert.equal(error, 0, `FLUSH failed with ${error}`);
  }

  async read(offset: number, length: number): Promise<Buffer> {
    this.#client.request({ type: COMMAND.READ, offset, length });
    const { kind, data, ...answer } = await this.#client.answer(length);
    assert.equal(kind, 'simple');
    assert.equal('error' in answer ? answer.error : -1, 0);
    return data;
  }

  close(): void {
    this.#client.disconnect();
  }
}
