/**
 * An IP address as four 32-bit words, most significant first. An IPv4 address stands in the first word and the
 * others are zero, so that prefixes of both families compare the same way.
 */
export interface IpAddress {
  readonly family: 4 | 6;
  readonly w0: number;
  readonly w1: number;
  readonly w2: number;
  readonly w3: number;
}

/** The longest RFC 4291 text: six groups and a dotted quad. */
const IPV6_TEXT_MAX = 45;

/**
 * Reads a canonical dotted quad or RFC 4291 text, and nothing else: no octal, hexadecimal, short or zero-led
 * quads (inet_aton spellings), no zone, no brackets. Undefined for anything else.
 */
export function parseAddress(text: string): IpAddress | undefined {
  if (text.includes(':')) return parseIPv6(text);
  const value = parseQuad(text, 0);
  return value < 0 ? undefined : ipv4(value);
}

export function ipv4(value: number): IpAddress {
  return { family: 4, w0: value >>> 0, w1: 0, w2: 0, w3: 0 };
}

/** The value of the dotted quad from `start` to the end, or -1. */
function parseQuad(text: string, start: number): number {
  let value = 0;
  let octet = -1;
  let dots = 0;
  if (text.length - start > 15) return -1;
  for (let index = start; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    if (code === 46) {
      if (octet < 0 || dots === 3) return -1;
      value = value * 256 + octet;
      octet = -1;
      dots += 1;
    } else if (code >= 48 && code <= 57) {
      // A leading zero is octal to inet_aton and decimal to others; neither reading is right.
      if (octet === 0) return -1;
      octet = octet < 0 ? code - 48 : octet * 10 + code - 48;
      if (octet > 255) return -1;
    } else return -1;
  }
  return dots === 3 && octet >= 0 ? value * 256 + octet : -1;
}

function parseIPv6(text: string): IpAddress | undefined {
  if (text.length > IPV6_TEXT_MAX) return undefined;
  const groups: number[] = [];
  let gap = -1;
  let index = 0;
  if (text.startsWith('::')) {
    gap = 0;
    index = 2;
  }
  while (index < text.length) {
    const start = index;
    let group = 0;
    for (; index < text.length; index += 1) {
      const digit = hexDigit(text.charCodeAt(index));
      if (digit < 0) break;
      group = group * 16 + digit;
    }
    if (text.charCodeAt(index) === 46) {
      const quad = parseQuad(text, start);
      if (quad < 0) return undefined;
      groups.push(Math.floor(quad / 65_536), quad % 65_536);
      index = text.length;
      break;
    }
    if (index === start || index - start > 4) return undefined;
    groups.push(group);
    if (groups.length > 8) return undefined;
    if (index === text.length) break;
    if (text.charCodeAt(index) !== 58) return undefined;
    index += 1;
    if (text.charCodeAt(index) === 58) {
      if (gap >= 0) return undefined;
      gap = groups.length;
      index += 1;
    } else if (index === text.length) return undefined;
  }
  return fromGroups(groups, gap);
}

function fromGroups(groups: number[], gap: number): IpAddress | undefined {
  // `::` stands for one group or more (RFC 4291 section 2.2).
  if (gap < 0 ? groups.length !== 8 : groups.length > 7) return undefined;
  const missing = 8 - groups.length;
  const at = (index: number): number => {
    if (gap < 0 || index < gap) return groups[index] ?? 0;
    return index < gap + missing ? 0 : (groups[index - missing] ?? 0);
  };
  const word = (index: number): number => at(index) * 65_536 + at(index + 1);
  return { family: 6, w0: word(0), w1: word(2), w2: word(4), w3: word(6) };
}

function hexDigit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48;
  if (code >= 97 && code <= 102) return code - 87;
  return code >= 65 && code <= 70 ? code - 55 : -1;
}

/** The IPv4 address for an IPv4-mapped one (the kernel connects to that), every other address as it is. */
export function canonicalAddress(address: IpAddress): IpAddress {
  if (address.family === 4 || address.w0 !== 0 || address.w1 !== 0 || address.w2 !== 0xffff) return address;
  return ipv4(address.w3);
}

/** Dotted quad, or RFC 5952 text. */
export function formatAddress(address: IpAddress): string {
  const { w0, w1, w2, w3 } = address;
  if (address.family === 4) return `${w0 >>> 24}.${(w0 >>> 16) & 255}.${(w0 >>> 8) & 255}.${w0 & 255}`;
  const groups = [
    w0 >>> 16,
    w0 & 0xffff,
    w1 >>> 16,
    w1 & 0xffff,
    w2 >>> 16,
    w2 & 0xffff,
    w3 >>> 16,
    w3 & 0xffff,
  ];
  let best = 0;
  let bestLength = 1;
  for (let start = 0; start < 8; start += 1) {
    let end = start;
    while (end < 8 && groups[end] === 0) end += 1;
    if (end - start > bestLength) {
      best = start;
      bestLength = end - start;
    }
    if (end > start) start = end;
  }
  let text = '';
  for (let index = 0; index < 8; index += 1) {
    if (index === best && bestLength > 1) {
      text += '::';
      index += bestLength - 1;
    } else {
      const separator = text === '' || text.endsWith('::') ? '' : ':';
      text += separator + (groups[index] as number).toString(16);
    }
  }
  return text;
}
