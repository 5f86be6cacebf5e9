import { PosternError } from '../../shared/errors.ts';
import { label, u64Field, type VolumeKeys } from './keys.ts';
import { sha256 } from './seal.ts';

/** Commits are the leaves of a transparency log (RFC 6962): at most one hash for each bit of a u48. */
export const FRONTIER_MAX = 48;

/**
 * The roots of the perfect subtrees, the largest first, of a log of `size` leaves: all that is needed to append, to
 * compute the root, and to prove consistency from here on.
 */
export interface Frontier {
  readonly size: number;
  readonly hashes: readonly Buffer[];
}

export const EMPTY_FRONTIER: Frontier = { size: 0, hashes: [] };

/** The log's leaf for a commit: nothing of the volume can be read from it. */
export function commitLeaf(keys: VolumeKeys, epoch: number, seq: number, commitHash: Buffer): Buffer {
  return sha256(label('leaf-v1', keys.leafName, u64Field(epoch), u64Field(seq), commitHash));
}

/** The frontier after one more leaf. */
export function append(frontier: Frontier, leaf: Buffer): Frontier {
  const hashes = [...frontier.hashes];
  let hash = sha256(Buffer.from([0]), leaf);
  for (let size = frontier.size; size % 2 === 1; size = (size - 1) / 2) {
    const left = hashes.pop();
    if (left === undefined) throw new RangeError('a frontier with too few hashes');
    hash = sha256(Buffer.from([1]), left, hash);
  }
  hashes.push(hash);
  return { size: frontier.size + 1, hashes };
}

/** The log's root hash (RFC 6962, section 2.1). */
export function rootHash(frontier: Frontier): Buffer {
  const [last, ...rest] = [...frontier.hashes].reverse();
  if (last === undefined) return sha256();
  return rest.reduce((right, left) => sha256(Buffer.from([1]), left, right), last);
}

/** @throws ERR_VOLUME_CORRUPT when the number of hashes is not what `size` asks for. */
export function checkFrontier(frontier: Frontier): void {
  let expected = 0;
  for (let size = frontier.size; size > 0; size = Math.floor(size / 2)) expected += size % 2;
  if (frontier.hashes.length !== expected) {
    throw new PosternError(
      'ERR_VOLUME_CORRUPT',
      `a log of ${frontier.size} with ${frontier.hashes.length} hashes`,
    );
  }
}

export function equalFrontiers(a: Frontier, b: Frontier): boolean {
  return (
    a.size === b.size &&
    a.hashes.length === b.hashes.length &&
    a.hashes.every((hash, index) => b.hashes[index]?.equals(hash))
  );
}
