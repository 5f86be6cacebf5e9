import assert from 'node:assert/strict';
import { BLOCK_BYTES } from '../../../guest/volume/limits.ts';

const HOLE = Buffer.alloc(BLOCK_BYTES);

/** A version of one block. `isSettled`: its write has resolved, so the next flush must hold it or a later one. */
interface Version {
  readonly bytes: Buffer;
  isSettled: boolean;
}

/** What a flush that is under way would make certain: for each block the newest version that had resolved. */
export type FlushMark = Map<number, Version>;

/**
 * What each block may hold. Versions stand in the order of their writes (the driver never has two writes of one block
 * under way); a crash may leave any of them, a flush rules out those before the one that it made durable.
 */
export class BlockModel {
  readonly #versions = new Map<number, Version[]>();

  #of(block: number): Version[] {
    let versions = this.#versions.get(block);
    if (versions === undefined) {
      versions = [{ bytes: HOLE, isSettled: true }];
      this.#versions.set(block, versions);
    }
    return versions;
  }

  newest(block: number): Buffer {
    return this.#of(block).at(-1)?.bytes ?? HOLE;
  }

  /** A write begins. Call what it returns when the write has resolved. */
  write(block: number, bytes: Buffer): () => void {
    const version = { bytes, isSettled: false };
    this.#of(block).push(version);
    return () => {
      version.isSettled = true;
    };
  }

  /** A flush begins. */
  mark(): FlushMark {
    const mark: FlushMark = new Map();
    for (const [block, versions] of this.#versions) {
      const settled = versions.findLast(({ isSettled }) => isSettled);
      if (settled !== undefined) mark.set(block, settled);
    }
    return mark;
  }

  /** The flush succeeded: what came before its mark can never be seen again. */
  flushed(mark: FlushMark): void {
    for (const [block, version] of mark) {
      const versions = this.#of(block);
      const at = versions.indexOf(version);
      if (at > 0) versions.splice(0, at);
    }
  }

  /**
   * What a running volume returned: `since`, the newest version when the read began, or one that came while it was
   * under way (in which time a flush may have ruled `since` out for later reads).
   */
  checkRead(block: number, bytes: Buffer, since: Buffer, context: string): void {
    const versions = this.#of(block);
    const from = versions.findLastIndex((version) => version.bytes === since);
    const legal = [since, ...versions.slice(from + 1).map((version) => version.bytes)];
    assert.ok(
      legal.some((other) => other.equals(bytes)),
      `${context}: block ${block} reads ${describe(bytes)}, may be ${legal.map(describe).join(', ')}`,
    );
  }

  /** What an attach found: some version that was not ruled out. From here on it is the only one. */
  checkAttached(block: number, bytes: Buffer, context: string): void {
    const versions = this.#of(block);
    const found = versions.find((version) => version.bytes.equals(bytes));
    assert.ok(
      found,
      `${context}: block ${block} holds ${describe(bytes)}, may be ${versions.map((v) => describe(v.bytes)).join(', ')}`,
    );
    this.#versions.set(block, [{ bytes: found.bytes, isSettled: true }]);
  }

  /** All blocks as they would be now, were nothing lost. */
  image(): Map<number, Buffer> {
    return new Map([...this.#versions.keys()].map((block) => [block, this.newest(block)]));
  }

  /** The volume was set to another state as a whole; `isCertain`: it surely was. */
  setImage(image: ReadonlyMap<number, Buffer>, isCertain: boolean): void {
    for (const block of new Set([...this.#versions.keys(), ...image.keys()])) {
      const version = { bytes: image.get(block) ?? HOLE, isSettled: isCertain };
      if (isCertain) this.#versions.set(block, [version]);
      else this.#of(block).push(version);
    }
  }
}

/** A write's number stands at the beginning of its bytes. */
export function describe(bytes: Buffer): string {
  if (bytes.equals(HOLE.subarray(0, bytes.length))) return 'zeros';
  return `${bytes
    .subarray(0, 12)
    .toString('latin1')
    .replaceAll(/[^ -~]/g, '.')}…`;
}
