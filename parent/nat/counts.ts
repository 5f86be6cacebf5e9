/**
 * Why a datagram went nowhere. denied: by the guard. filtered: from an address that the association has not sent to.
 * guest-slow: the guest does not read. network-slow: the kernel takes no more. rate: over the guest's quota. failed: the
 * kernel refused to send it.
 */
export const DROP_REASONS = ['denied', 'filtered', 'guest-slow', 'network-slow', 'rate', 'failed'] as const;
export type DropReason = (typeof DROP_REASONS)[number];

/** The datagrams of one guest since it is known; `in` is towards it. */
export class DatagramCounts {
  in = 0;
  out = 0;
  inBytes = 0;
  outBytes = 0;
  readonly dropped: Record<DropReason, number> = {
    denied: 0,
    filtered: 0,
    'guest-slow': 0,
    'network-slow': 0,
    rate: 0,
    failed: 0,
  };
}
