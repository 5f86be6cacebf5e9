import { PosternError, type Problem } from '../../shared/errors.ts';
import { type Ds, parseDs } from './ds.ts';
import { DomainName } from './name.ts';

/** What is trusted at a name without proof: keys or their digests, or (negative) that the zone is not signed. */
export interface TrustAnchor {
  readonly name: DomainName;
  readonly ds: readonly Ds[];
  /** Canonical DNSKEY rdata. */
  readonly keys: readonly Buffer[];
  /** RFC 7646: what is below is taken as insecure, however it is signed. */
  readonly negative: boolean;
}

/** The anchors of a configuration, one for each name. The closest that encloses a name governs it. */
export class TrustAnchors {
  readonly #byName = new Map<string, TrustAnchor>();

  constructor(anchors: readonly TrustAnchor[], negative: readonly DomainName[] = []) {
    for (const anchor of anchors) this.#byName.set(anchor.name.key, anchor);
    for (const name of negative) this.#byName.set(name.key, { name, ds: [], keys: [], negative: true });
  }

  closest(name: DomainName): TrustAnchor | undefined {
    for (let count = name.labelCount; count >= 0; count -= 1) {
      const anchor = this.#byName.get(name.suffix(count).key);
      if (anchor !== undefined) return anchor;
    }
    return undefined;
  }
}

const MNEMONICS = new Map([
  ['RSASHA256', 8],
  ['RSASHA512', 10],
  ['ECDSAP256SHA256', 13],
  ['ECDSAP384SHA384', 14],
  ['ED25519', 15],
  ['ED448', 16],
]);

/**
 * Reads anchors in presentation form, one DS or DNSKEY record a line (`owner [ttl] [IN] DS ...`); `;` begins a comment.
 * @throws PosternError ERR_CONFIG_INVALID with every line that is wrong
 */
export function parseAnchors(text: string, source: string): TrustAnchor[] {
  const problems: Problem[] = [];
  const byName = new Map<string, { name: DomainName; ds: Ds[]; keys: Buffer[]; negative: false }>();
  for (const [index, line] of joinParentheses(text).entries()) {
    const words = line.split(/\s+/).filter((word) => word !== '');
    if (words.length === 0) continue;
    const record = parseLine(words);
    if (record === undefined) {
      const expected = 'a DS or DNSKEY record: owner [ttl] [IN] DS tag algorithm digest-type digest';
      problems.push({
        path: '',
        found: JSON.stringify(line.trim().slice(0, 120)),
        expected,
        line: index + 1,
      });
      continue;
    }
    const { name, ds, key } = record;
    const anchor = byName.get(name.key) ?? { name, ds: [], keys: [], negative: false };
    byName.set(name.key, anchor);
    if (ds !== undefined) anchor.ds.push(ds);
    if (key !== undefined) anchor.keys.push(key);
  }
  if (problems.length === 0 && byName.size === 0) {
    problems.push({ path: '', found: 'no record', expected: 'at least one DS or DNSKEY record' });
  }
  if (problems.length > 0) {
    const lines = problems.map(
      ({ line, found, expected }) => `${source}:${line ?? 1}: expected ${expected}, found ${found}`,
    );
    throw new PosternError('ERR_CONFIG_INVALID', lines.join('\n'), { problems });
  }
  return [...byName.values()];
}

/** Lines without comments; a record in parentheses is put on its first line, so that line numbers stay. */
function joinParentheses(text: string): string[] {
  const lines: string[] = [];
  let open: number | undefined;
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.replace(/;.*$/, '');
    lines[index] = '';
    const target = open ?? index;
    lines[target] += ` ${line.replace(/[()]/g, ' ')}`;
    if (line.includes('(')) open ??= index;
    if (line.includes(')')) open = undefined;
  }
  return lines;
}

function parseLine(words: readonly string[]): { name: DomainName; ds?: Ds; key?: Buffer } | undefined {
  const at = words.findIndex((word, index) => index > 0 && /^(DS|DNSKEY)$/i.test(word));
  const between = words.slice(1, at);
  if (at < 1 || between.some((word) => !/^(\d+|IN)$/i.test(word))) return undefined;
  const [owner = ''] = words;
  const [first = '', second = '', third = '', ...rest] = words.slice(at + 1);
  let name: DomainName;
  try {
    name = DomainName.parse(owner);
  } catch {
    return undefined;
  }
  const isDs = words[at]?.toUpperCase() === 'DS';
  const algorithm = algorithmNumber(isDs ? second : third);
  if (!/^\d{1,5}$/.test(first) || algorithm === undefined) return undefined;
  if (isDs) {
    const digest = rest.join('');
    if (!/^\d{1,3}$/.test(third) || !/^([0-9a-f]{2})+$/i.test(digest)) return undefined;
    const head = Buffer.from([Number(first) >> 8, Number(first) & 0xff, algorithm, Number(third)]);
    const ds = parseDs(Buffer.concat([head, Buffer.from(digest, 'hex')]));
    return ds && { name, ds };
  }
  const key = rest.join('');
  if (!/^\d{1,3}$/.test(second) || !/^[0-9a-z+/]+={0,2}$/i.test(key)) return undefined;
  const head = Buffer.from([Number(first) >> 8, Number(first) & 0xff, Number(second), algorithm]);
  return { name, key: Buffer.concat([head, Buffer.from(key, 'base64')]) };
}

function algorithmNumber(word: string): number | undefined {
  return /^\d{1,3}$/.test(word) ? Number(word) : MNEMONICS.get(word.toUpperCase());
}
