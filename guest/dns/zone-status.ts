import type { DomainName } from './name.ts';
import type { Signer } from './verify.ts';

/** The objects of a status, those of its name included. */
const STATUS_BYTES = 600;

/** A zone whose keys are proven from an anchor. */
export interface SecureZone extends Signer {
  /** The zone that holds its DS; undefined where an anchor is the zone's own. */
  readonly parent: SecureZone | undefined;
  /** What vouches for the key that signs its keys, for a person. */
  readonly entry: string;
  readonly signedBy: string;
}

/** RFC 4033 section 5 for a place in the tree. Bogus is not here: it is thrown. */
export type ZoneStatus =
  | { readonly state: 'secure'; readonly zone: SecureZone }
  | {
      readonly state: 'insecure';
      readonly at: DomainName;
      readonly reason: string;
      readonly parent: SecureZone | undefined;
    }
  | { readonly state: 'indeterminate' };

/** What a status holds in memory, that of the zone above apart. Joined texts keep what they were joined of. */
export function statusBytes(status: ZoneStatus): number {
  if (status.state === 'indeterminate') return 0;
  if (status.state === 'insecure') return STATUS_BYTES + nameBytes(status.at) + 2 * status.reason.length;
  const { name, keys, entry, signedBy } = status.zone;
  return STATUS_BYTES + nameBytes(name) + keys.sizeBytes + 2 * (entry.length + signedBy.length);
}

/** Its octets, those that it was cut from, and where its labels begin. */
function nameBytes({ key, labelCount }: DomainName): number {
  return 2 * key.length + 8 * labelCount;
}
