import { domainToASCII } from 'node:url';
import { type IpAddress, parseAddress } from './address.ts';

/** RFC 1035 section 2.3.4: 63 octets a label; 255 octets on the wire are 253 characters of text. */
export const LABEL_MAX = 63;
export const NAME_MAX = 253;
/** A name may shrink when it becomes ASCII (composed characters), yet nothing longer is worth reading. */
const INPUT_MAX = 1024;

/** Top-level names that never are a registry's: a wildcard right below them names one operator's hosts. */
const PRIVATE_TOP_LEVEL = new Set(['internal', 'local', 'localhost', 'test', 'example', 'invalid']);

/**
 * What a person or an application wrote where a host belongs. `numeric` is an inet_aton spelling of an address
 * (`2852039166`, `0x7f.1`, `0251.0376.0251.0376`): never a name, since it must not be resolved, and never an
 * address, since two programs read two different ones.
 */
export type Host =
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'address'; readonly address: IpAddress }
  | { readonly kind: 'numeric' }
  | { readonly kind: 'invalid'; readonly expected: string };

/** Reads a host as it stands in a URL, a SOCKS request or a command line; IPv6 with or without brackets. */
export function parseHost(text: string): Host {
  const bracketed = text.startsWith('[') && text.endsWith(']');
  const address = parseAddress(bracketed ? text.slice(1, -1) : text);
  if (address !== undefined && (address.family === 6 || !bracketed)) return { kind: 'address', address };
  const reading = readName(text);
  if ('name' in reading) return { kind: 'name', name: reading.name };
  return reading.expected === NUMERIC ? { kind: 'numeric' } : { kind: 'invalid', expected: reading.expected };
}

export type NameReading = { readonly name: string } | { readonly expected: string };

const NUMERIC = 'a name that does not end in a number (a spelling of an address is not a name)';

/** True for text that inet_aton or a browser would read as an IPv4 address, or whose last label is a number. */
export function isNumericSpelling(text: string): boolean {
  const reading = readName(text);
  return 'expected' in reading && reading.expected === NUMERIC;
}

/**
 * The one spelling of a name: A-labels (RFC 5890), lower case, no trailing dot. Underscore labels are names like
 * others. Undefined for what is no name.
 */
export function canonicalName(text: string): string | undefined {
  if (isPlain(text)) return text;
  const reading = readName(text);
  return 'name' in reading ? reading.name : undefined;
}

/** As `canonicalName`, and says what is wrong. */
export function readName(text: string): NameReading {
  if (text.length > INPUT_MAX) return { expected: `a name of at most ${NAME_MAX} characters` };
  if (text.includes('://')) return { expected: 'a name alone, not a URL' };
  const ascii = toAscii(text);
  if (ascii === undefined) return { expected: 'a name of letters, digits, hyphens, underscores and dots' };
  const name = ascii.endsWith('.') ? ascii.slice(0, -1) : ascii;
  if (name === '') return { expected: 'a name, not an empty text' };
  const labels = name.split('.');
  if (/^(\d+|0x[\da-f]*)$/.test(labels.at(-1) ?? '')) return { expected: NUMERIC };
  if (name.length > NAME_MAX) return { expected: `a name of at most ${NAME_MAX} characters` };
  if (labels.includes('')) return { expected: 'no empty label (two dots in a row, or one in front)' };
  if (labels.some((label) => label.length > LABEL_MAX)) {
    return { expected: `labels of at most ${LABEL_MAX} characters` };
  }
  return { name };
}

/**
 * The parser behind domainToASCII is a browser's: it undoes percent signs and reads numbers as addresses. So it
 * sees only names that need it, with no other ASCII than a name's, and its answer is checked like any text.
 */
function toAscii(text: string): string | undefined {
  if (/^[\w.-]*$/.test(text)) return text.toLowerCase();
  if (!/^[\w.\-\u0080-\u{10ffff}]*$/u.test(text)) return undefined;
  const ascii = domainToASCII(text);
  return ascii !== '' && /^[\w.-]+$/.test(ascii) ? ascii.toLowerCase() : undefined;
}

/**
 * A name that is canonical already, found without allocation: what a resolver hands on, thousands a second. A last
 * label that begins with a digit may be a number and goes the slow way.
 */
const PLAIN = /^(?:[a-z\d_-]{1,63}\.)*[a-z_-][a-z\d_-]{0,62}$/;

function isPlain(text: string): boolean {
  return text.length <= NAME_MAX && PLAIN.test(text);
}

/**
 * A pattern of a rule in its one spelling: `name`, `*.name` (one label more) or `**.name` (one or more).
 * `*` stands for whole labels at the front only, and never right below a registry's top-level name.
 */
export function readPattern(text: string): { readonly pattern: string } | { readonly expected: string } {
  const star = /^(\*\*?)\./.exec(text)?.[1] ?? '';
  const rest = star === '' ? text : text.slice(star.length + 1);
  if (rest.includes('*')) {
    return {
      expected: 'a * only as the whole first label: *.example.com (one label) or **.example.com (any)',
    };
  }
  const host = parseHost(rest);
  if (host.kind === 'address') return { expected: `a name; for an address write ip: ${text}` };
  if (/^[^/]+:\d+$/.test(text)) return { expected: 'a name alone; ports stand in ports' };
  if (text.includes('://')) return { expected: `a name alone, not a URL${nameOfUrl(text)}` };
  if (/^[\d.:a-fA-F]+\/\d+$/.test(text)) return { expected: `a name; for a block write cidr: ${text}` };
  if (host.kind === 'invalid') return { expected: host.expected };
  if (host.kind === 'numeric') return { expected: NUMERIC };
  if (!host.name.includes('.') && !PRIVATE_TOP_LEVEL.has(host.name)) {
    return { expected: `a name of two labels or more${star === '' ? '' : ' behind the wildcard'}` };
  }
  return { pattern: star === '' ? host.name : `${star}.${host.name}` };
}

function nameOfUrl(text: string): string {
  const host = /^\w+:\/\/([\w.-]+)/.exec(text)?.[1];
  return host === undefined ? '' : `: probably ${host} was meant`;
}

/** Whether a canonical pattern matches a canonical name; the index answers the same for many patterns at once. */
export function patternMatches(pattern: string, name: string): boolean {
  if (!pattern.startsWith('*')) return pattern === name;
  const suffix = pattern.slice(pattern.indexOf('.'));
  if (!name.endsWith(suffix) || name.length === suffix.length) return false;
  return pattern.startsWith('**') || !name.slice(0, -suffix.length).includes('.');
}
