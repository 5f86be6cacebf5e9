import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';

export const BLOCK_BYTES = 4096;

/** What may be in each block: the last version that is known to be safe, and those that were written after it. */
export class CrashModel {
  #version = 0;
  readonly #possible: number[][];

  constructor(blocks: number) {
    this.#possible = Array.from({ length: blocks }, () => [0]);
  }

  get blocks(): number {
    return this.#possible.length;
  }

  /** A write begins: its bytes. */
  begin(block: number): Buffer {
    this.#version += 1;
    this.#possible[block]?.push(this.#version);
    return contentOf(block, this.#version);
  }

  /** What a flush that begins now makes safe of these blocks, once it is acknowledged; all their writes have ended. */
  newestOf(blocks: readonly number[]): ReadonlyMap<number, number> {
    return new Map(blocks.map((block) => [block, this.#possible[block]?.at(-1) ?? 0]));
  }

  acknowledge(newest: ReadonlyMap<number, number>): void {
    for (const [block, version] of newest) {
      this.#possible[block] = (this.#possible[block] ?? []).filter((other) => other >= version);
    }
  }

  /** A state that was attached stays: what it does not show is gone for good, and must never come back. */
  check(block: number, found: Buffer, context: string): void {
    const possible = this.#possible[block] ?? [];
    const version = possible.find((other) => found.equals(contentOf(block, other)));
    const text = `${context}: block ${block} holds none of the versions ${possible.join(', ')}`;
    assert.notEqual(version, undefined, text);
    this.#possible[block] = [version ?? 0];
  }
}

function contentOf(block: number, version: number): Buffer {
  if (version === 0) return Buffer.alloc(BLOCK_BYTES);
  return Buffer.alloc(BLOCK_BYTES, createHash('sha256').update(`${block} ${version}`).digest());
}
