import * as v from 'valibot';
import { canonicalAddress, formatAddress, parseAddress } from '../../shared/policy/address.ts';
import { readName } from '../../shared/policy/name.ts';
import { parseResolverAddress, type ResolverAddress } from '../dns/upstream/address.ts';

const RESOLVER_EXPECTED =
  'IP, IP:PORT or [IPv6]:PORT, such as 192.0.2.53; over UDP first: udp:192.0.2.53; encrypted: tls:192.0.2.53#dns.example.net or https:192.0.2.53#dns.example.net/dns-query';
const ZONE_EXPECTED = 'a domain name such as private.example, or . for every name';

/** A recursive resolver that the owner chose; its address in the one spelling that frames carry, IPv4 where it is IPv4-mapped. */
export const resolverAddress = v.pipe(
  v.string(RESOLVER_EXPECTED),
  v.rawTransform(({ dataset, addIssue, NEVER }): ResolverAddress => {
    const server = parseResolverAddress(dataset.value);
    const address = server === undefined ? undefined : parseAddress(server.address);
    if (server !== undefined && address !== undefined)
      return { ...server, address: formatAddress(canonicalAddress(address)) };
    addIssue({ message: RESOLVER_EXPECTED });
    return NEVER;
  }),
);

/** The canonical name of a zone; `.` for the root. */
export const zoneName = v.pipe(
  v.string(ZONE_EXPECTED),
  v.rawTransform(({ dataset, addIssue, NEVER }): string => {
    if (dataset.value === '.') return '.';
    const reading = readName(dataset.value);
    if ('name' in reading) return reading.name;
    addIssue({ message: ZONE_EXPECTED });
    return NEVER;
  }),
);

const seconds = (max: number) =>
  v.pipe(
    v.number('a whole number of seconds'),
    v.integer('a whole number of seconds'),
    v.minValue(0, 'from 0'),
    v.maxValue(max, `up to ${max}`),
  );

/** An hour is longer than any application waits between looking a name up and connecting; a day, than it should cache. */
export const leases = v.strictObject({
  floorSeconds: v.optional(seconds(3_600)),
  graceSeconds: v.optional(seconds(86_400)),
});
