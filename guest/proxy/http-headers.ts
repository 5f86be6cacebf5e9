/** RFC 9110 section 7.6.1, and the older ones that proxies drop as well. Names in lower case. */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-authentication-info',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
]);
/** A message whose Connection header takes these away would be another message. */
const NEVER_NOMINATED = new Set(['host', 'content-length', 'content-type', 'expect', 'date']);
export const VIA = '1.1 postern';

/** Name and value by turns, as node:http gives and takes raw headers. */
export type RawHeaders = readonly string[];

/** The headers that travel on to the next hop, in their order and spelling. */
export function endToEndHeaders(raw: RawHeaders, drop: ReadonlySet<string> = new Set()): string[] {
  const nominated = nominatedBy(raw);
  const kept: string[] = [];
  for (const [name, value] of pairs(raw)) {
    const lower = name.toLowerCase();
    if (HOP_BY_HOP.has(lower) || nominated.has(lower) || drop.has(lower)) continue;
    kept.push(name, value);
  }
  kept.push('Via', VIA);
  return kept;
}

function nominatedBy(raw: RawHeaders): Set<string> {
  const names = new Set<string>();
  for (const [name, value] of pairs(raw)) {
    if (name.toLowerCase() !== 'connection') continue;
    for (const option of value.split(',')) {
      const nominated = option.trim().toLowerCase();
      if (!NEVER_NOMINATED.has(nominated)) names.add(nominated);
    }
  }
  return names;
}

/** How many times a header stands there; `name` in lower case. */
export function countHeader(raw: RawHeaders, name: string): number {
  let count = 0;
  for (const [found] of pairs(raw)) if (found.toLowerCase() === name) count += 1;
  return count;
}

function* pairs(raw: RawHeaders): Generator<readonly [string, string]> {
  for (let index = 0; index + 1 < raw.length; index += 2) yield [raw[index] ?? '', raw[index + 1] ?? ''];
}
