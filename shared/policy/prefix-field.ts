import { parseAddress } from './address.ts';
import { distinct, type Report, readList } from './field.ts';
import { isNumericSpelling, parseHost } from './name.ts';
import { formatPrefix, hostPrefix, type Prefix, parsePrefix } from './prefix.ts';

/** Reads one block or a list of them with `one`; sorted, each once. */
export function readPrefixes(
  value: unknown,
  report: Report,
  one: (entry: unknown, complain: (expected: string) => void) => Prefix | undefined,
): Prefix[] {
  const entries = readList(value, 'an address', report, (entry, complain) => {
    const prefix = one(entry, complain);
    return prefix === undefined ? undefined : { key: formatPrefix(prefix), entry: prefix };
  });
  return distinct(entries, report);
}

export function readIp(entry: unknown, complain: (expected: string) => void): Prefix | undefined {
  const address = typeof entry === 'string' ? parseAddress(entry) : undefined;
  if (address !== undefined) return hostPrefix(address);
  if (typeof entry === 'string' && entry.includes('/') && 'prefix' in parsePrefix(entry)) {
    complain(`one address; for a block write cidr: ${entry}`);
  } else if (typeof entry === 'string' && isNumericSpelling(entry)) {
    complain('a dotted quad of four decimal numbers from 0 to 255, without leading zeros');
  } else if (typeof entry === 'string' && parseHost(entry).kind === 'name') {
    complain(`an IP address; for a name write fqdn: ${entry}`);
  } else complain('an IP address such as 192.0.2.7 or "2001:db8::7"');
  return undefined;
}

export function readCidr(entry: unknown, complain: (expected: string) => void): Prefix | undefined {
  if (typeof entry !== 'string') {
    complain('a CIDR block such as 10.0.0.0/8 or 2001:db8::/32');
    return undefined;
  }
  const reading = parsePrefix(entry);
  if ('prefix' in reading) return reading.prefix;
  complain(reading.expected);
  return undefined;
}
