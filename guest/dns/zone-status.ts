import type { DomainName } from './name.ts';
import type { Signer } from './verify.ts';

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
