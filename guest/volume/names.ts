/** Names of a volume's objects below its prefix. They say no more than order and kind. */
export const HEADER_NAME = 'hdr';
export const CLAIM_PREFIX = 'e/';
export const COMMIT_PREFIX = 'c/';
export const SEGMENT_PREFIX = 's/';
export const WRAP_PREFIX = 'k/';
export const DELETION_PREFIX = 'd/';

/** Twelve hex digits: in byte order of names, and room for 2^48. */
function hex48(value: number): string {
  return value.toString(16).padStart(12, '0');
}

export function claimName(epoch: number): string {
  return `${CLAIM_PREFIX}${hex48(epoch)}`;
}

export function commitName(epoch: number, seq: number): string {
  return `${COMMIT_PREFIX}${hex48(epoch)}-${hex48(seq)}`;
}

/** The epoch and sequence number in a commit's name, undefined when it is none. */
export function parseCommitName(name: string): { readonly epoch: number; readonly seq: number } | undefined {
  const match = /^c\/([0-9a-f]{12})-([0-9a-f]{12})$/.exec(name);
  if (match === null) return undefined;
  return { epoch: Number.parseInt(match[1] ?? '', 16), seq: Number.parseInt(match[2] ?? '', 16) };
}

export function segmentName(segmentId: Buffer): string {
  const hex = segmentId.toString('hex');
  return `${SEGMENT_PREFIX}${hex.slice(0, 2)}/${hex}`;
}

/** Says that the volume of this header is being deleted, to who cannot open it any more. */
export function deletionName(volumeId: Buffer): string {
  return `${DELETION_PREFIX}${volumeId.toString('hex')}`;
}

/** The generation in a wrap's name, undefined when it is none. */
export function parseWrapName(name: string): number | undefined {
  const match = /^k\/([0-9a-f]{8})-[0-9a-f]{16}$/.exec(name);
  return match === null ? undefined : Number.parseInt(match[1] ?? '', 16);
}

/** One generation's keys, wrapped for the root key that `rootId` (8 bytes) blinds. */
export function wrapName(generation: number, rootId: Buffer): string {
  return `${WRAP_PREFIX}${generation.toString(16).padStart(8, '0')}-${rootId.toString('hex')}`;
}
