import { networkInterfaces } from 'node:os';
import { formatAddress, parseAddress } from '../../shared/policy/address.ts';
import { specialKindOf } from '../../shared/policy/special.ts';

/** Interfaces seldom change; a guest has this long to reach the parent by an address that is new. */
const REFRESH_MS = 5_000;

let known: ReadonlySet<string> = new Set();
let readAt = Number.NEGATIVE_INFINITY;

/** The addresses of this host in canonical text, of every interface. Answers from memory, reads anew now and then. */
export function ownAddresses(): ReadonlySet<string> {
  const now = performance.now();
  if (now - readAt >= REFRESH_MS) {
    readAt = now;
    known = new Set(readAddresses());
  }
  return known;
}

function readAddresses(): string[] {
  const entries = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return entries.flatMap(({ address }) => {
    const parsed = parseAddress(address);
    // Loopback is every host's own, and has its block and its rules.
    const foreign = parsed === undefined || specialKindOf(address) === 'loopback';
    return foreign ? [] : [formatAddress(parsed)];
  });
}
