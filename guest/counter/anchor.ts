/**
 * A counter that the host cannot turn back: for each volume it holds the newest acknowledged commit, and moves only
 * from a state that the mover knows.
 *
 * Failure contract: `undefined` from `read` means that the anchor says it never heard of the volume (which nobody
 * reads as a first boot). ERR_ANCHOR_UNAVAILABLE: not done, or not known to be done; sending the same advance again is
 * safe. ERR_ANCHOR_CORRUPT: an answer that cannot be right. Losing a race is a result, not an error.
 */
export interface Anchor {
  readonly capabilities: AnchorCapabilities;
  /** Registers a volume, an explicit act. `exists`: it was there already, whatever its head. */
  create(volume: AnchorVolume, first: AnchorHead, options?: AnchorOptions): Promise<'created' | 'exists'>;
  read(volume: AnchorVolume, options?: AnchorOptions): Promise<AnchorHead | undefined>;
  /**
   * Moves from `step.from` along `step.leaves` to the last of them, if `from` is what the anchor holds. Idempotent: when the
   * anchor holds the last leaf already, that is success. `conflict` carries the head that it holds instead.
   */
  advance(volume: AnchorVolume, step: AnchorStep, options?: AnchorOptions): Promise<AnchorResult>;
}

export interface AnchorCapabilities {
  /** `file`, `witness`, `etcd`; what a person reads in `status`. */
  readonly kind: string;
  /** False: whoever runs the host can turn it back, and Postern says so every time. */
  readonly production: boolean;
  /** Most leaves of one advance (a witness takes a proof of bounded length). */
  readonly maxLeaves: number;
}

/** What an anchor may know of a volume: nothing that tells it which volume it is. */
export interface AnchorVolume {
  /** 16 bytes, random. */
  readonly anchorId: Buffer;
  /** 32 bytes: seed of the Ed25519 key that signs checkpoints of this volume's log. */
  readonly signingSeed: Buffer;
}

/** One acknowledged commit. */
export interface AnchorHead {
  readonly epoch: number;
  /** The commit's place in the log of all commits; the log's size is one more. */
  readonly seq: number;
  /** SHA-256 of the sealed commit. */
  readonly commitHash: Buffer;
}

export interface AnchorStep {
  readonly from: AnchorHead;
  /** Perfect subtree hashes of the log up to and including `from`: what a consistency proof starts from (RFC 6962). */
  readonly frontier: readonly Buffer[];
  /** Consecutive: `leaves[0].seq` is `from.seq + 1`. */
  readonly leaves: readonly AnchorLeaf[];
}

export interface AnchorLeaf extends AnchorHead {
  /** 32 bytes, blinded: what stands in the log for this commit. */
  readonly leaf: Buffer;
}

export type AnchorResult =
  | { readonly outcome: 'advanced' }
  | { readonly outcome: 'conflict'; readonly head: AnchorHead | undefined };

export interface AnchorOptions {
  readonly signal?: AbortSignal;
}

export function equalHeads(a: AnchorHead, b: AnchorHead): boolean {
  return a.epoch === b.epoch && a.seq === b.seq && a.commitHash.equals(b.commitHash);
}
