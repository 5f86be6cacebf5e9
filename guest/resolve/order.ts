import ipaddr from 'ipaddr.js';

/** RFC 8305 section 4: families take turns, IPv6 first; within a family the resolver's order stays. */
export function interleaveFamilies(addresses: readonly string[]): string[] {
  if (addresses.length < 2) return [...addresses];
  const unique = [...new Set(addresses)];
  const v6 = unique.filter((address) => ipaddr.parse(address).kind() === 'ipv6');
  const v4 = unique.filter((address) => ipaddr.parse(address).kind() === 'ipv4');
  const ordered: string[] = [];
  for (let index = 0; index < Math.max(v6.length, v4.length); index += 1) {
    ordered.push(...v6.slice(index, index + 1), ...v4.slice(index, index + 1));
  }
  return ordered;
}
