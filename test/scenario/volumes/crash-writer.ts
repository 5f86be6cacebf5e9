import { AssertionError } from 'node:assert';
import type { Random } from '../../../shared/objects/random.ts';
import { DiskClient } from './client.ts';
import { BLOCK_BYTES, type CrashModel } from './crash-model.ts';

/** A flush comes after so many writes at most. */
const WRITES_PER_FLUSH_MAX = 24;

/** Writes and flushes blocks of its own over one connection, until it is told to stop or the connection is gone. */
export class CrashWriter {
  readonly #model: CrashModel;
  readonly #blocks: readonly number[];
  readonly #random: Random;
  readonly #ended: Promise<void>;
  #isStopping = false;
  #loss: unknown;
  flushCount = 0;

  constructor(socket: string, model: CrashModel, blocks: readonly number[], random: Random) {
    this.#model = model;
    this.#blocks = blocks;
    this.#random = random;
    this.#ended = this.#write(socket);
    // Heard in `stop` and `lost`, which may come later than its end.
    this.#ended.catch(() => undefined);
  }

  /** After the next flush that is acknowledged, when everything written is safe. Throws when the connection was lost. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#ended;
    if (this.#loss !== undefined) throw this.#loss;
  }

  /** Resolves when the connection is lost, which is all that a killed guest leaves. */
  lost(): Promise<void> {
    return this.#ended;
  }

  async #write(socket: string): Promise<void> {
    let disk: DiskClient | undefined;
    try {
      disk = await DiskClient.connect(socket);
      while (!this.#isStopping) await this.#flushOnce(disk);
    } catch (error) {
      // An error that was answered is a promise broken.
      if (error instanceof AssertionError) throw error;
      this.#loss = error;
    } finally {
      disk?.close();
    }
  }

  async #flushOnce(disk: DiskClient): Promise<void> {
    for (let count = 1 + this.#below(WRITES_PER_FLUSH_MAX); count > 0; count -= 1) {
      const block = this.#blocks[this.#below(this.#blocks.length)] ?? 0;
      await disk.write(block * BLOCK_BYTES, this.#model.begin(block));
    }
    const newest = this.#model.newestOf(this.#blocks);
    await disk.flush();
    this.#model.acknowledge(newest);
    this.flushCount += 1;
  }

  #below(end: number): number {
    return Math.floor(this.#random() * end);
  }
}
