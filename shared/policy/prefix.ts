import { canonicalAddress, formatAddress, type IpAddress, parseAddress } from './address.ts';

/** A block of addresses: `network` has no bit set behind the first `length` ones. */
export interface Prefix {
  readonly network: IpAddress;
  readonly length: number;
}

export type PrefixReading = { readonly prefix: Prefix } | { readonly expected: string };

/** Reads `10.0.0.0/8` or `2001:db8::/32`; a block inside ::ffff:0:0/96 becomes the IPv4 block that it maps. */
export function parsePrefix(text: string): PrefixReading {
  const cut = text.indexOf('/');
  if (cut < 0) {
    const address = parseAddress(text);
    const advice = address === undefined ? '' : `; for one address write ip: ${text}`;
    return { expected: `a CIDR block such as 10.0.0.0/8 or 2001:db8::/32${advice}` };
  }
  const address = parseAddress(text.slice(0, cut));
  if (address === undefined) {
    return {
      expected: 'a CIDR block that starts with a dotted quad (four decimal numbers) or RFC 4291 text',
    };
  }
  const digits = text.slice(cut + 1);
  const max = address.family === 4 ? 32 : 128;
  if (!/^(0|[1-9]\d{0,2})$/.test(digits) || Number(digits) > max) {
    return { expected: `a prefix length from 0 to ${max} after the slash` };
  }
  const network = maskAddress(address, Number(digits));
  if (!sameAddress(network, address)) {
    return {
      expected: `no bits set behind the prefix: probably ${formatAddress(network)}/${digits} was meant`,
    };
  }
  return { prefix: canonicalPrefix({ network, length: Number(digits) }) };
}

/** The block of one address. */
export function hostPrefix(address: IpAddress): Prefix {
  const network = canonicalAddress(address);
  return { network, length: network.family === 4 ? 32 : 128 };
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatAddress(prefix.network)}/${prefix.length}`;
}

export function prefixContains(prefix: Prefix, address: IpAddress): boolean {
  const { network, length } = prefix;
  return (
    network.family === address.family &&
    ((network.w0 ^ address.w0) & wordMask(length, 0)) === 0 &&
    ((network.w1 ^ address.w1) & wordMask(length, 32)) === 0 &&
    ((network.w2 ^ address.w2) & wordMask(length, 64)) === 0 &&
    ((network.w3 ^ address.w3) & wordMask(length, 96)) === 0
  );
}

/** The address with every bit behind the first `length` cleared. */
export function maskAddress(address: IpAddress, length: number): IpAddress {
  return {
    family: address.family,
    w0: (address.w0 & wordMask(length, 0)) >>> 0,
    w1: (address.w1 & wordMask(length, 32)) >>> 0,
    w2: (address.w2 & wordMask(length, 64)) >>> 0,
    w3: (address.w3 & wordMask(length, 96)) >>> 0,
  };
}

/** The mask of the word that starts at bit `offset`, as a signed 32-bit number. */
function wordMask(length: number, offset: number): number {
  const bits = length - offset;
  if (bits <= 0) return 0;
  return bits >= 32 ? -1 : -1 << (32 - bits);
}

function canonicalPrefix(prefix: Prefix): Prefix {
  const network = canonicalAddress(prefix.network);
  if (network.family === prefix.network.family || prefix.length < 96) return prefix;
  return { network, length: prefix.length - 96 };
}

function sameAddress(a: IpAddress, b: IpAddress): boolean {
  return a.w0 === b.w0 && a.w1 === b.w1 && a.w2 === b.w2 && a.w3 === b.w3;
}
