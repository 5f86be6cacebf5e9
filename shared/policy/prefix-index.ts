import type { IpAddress } from './address.ts';
import {
  buildTables,
  type Claim,
  mergeTables,
  type Nearness,
  NO_RULE,
  type PortTable,
  type ProtocolTables,
  type TableMemo,
} from './port-table.ts';
import { formatPrefix, type Prefix } from './prefix.ts';
import { PROTOCOLS, type Protocol } from './types.ts';

/**
 * Segments that may be spent on joining the tables of nested prefixes (16 bytes each, so 32 MiB): real policies
 * use a few thousand. Past it a question walks outwards from prefix to prefix.
 */
const MERGE_SEGMENTS_MAX = 2_000_000;

interface Node {
  readonly prefix: Prefix;
  readonly own: ProtocolTables;
  /** The next prefix outwards. */
  readonly outer: Node | undefined;
  /** `own` joined with the tables of the prefixes outwards as far as, and without, `rest`. */
  joined: ProtocolTables;
  rest: Node | undefined;
}

/** The prefixes of one family, as the address space cut into pieces: one binary search, one port lookup. */
export class PrefixIndex {
  /** Four words for the first address of each piece, ascending. */
  readonly #starts: Uint32Array;
  /** The innermost prefix that holds the piece. */
  readonly #nodes: (Node | undefined)[] = [undefined];

  /** @param claims ascending by index */
  constructor(
    claims: readonly Claim[],
    family: 4 | 6,
    memo: TableMemo = new Map(),
    mergeSegments = MERGE_SEGMENTS_MAX,
  ) {
    const starts = [0n];
    const open: Node[] = [];
    const cut = (start: bigint, node: Node | undefined): void => {
      if (start >> 128n !== 0n) return;
      // A piece that would be empty: the one behind it begins at the same address.
      if (starts.at(-1) === start) this.#nodes.pop();
      else starts.push(start);
      this.#nodes.push(node);
    };
    const closeUntil = (start: bigint): void => {
      for (let node = open.at(-1); node !== undefined && endOf(node.prefix) <= start; node = open.at(-1)) {
        open.pop();
        cut(endOf(node.prefix), open.at(-1));
      }
    };
    const budget = { left: mergeSegments };
    for (const { prefix, list } of groupByPrefix(claims, family)) {
      closeUntil(startOf(prefix));
      const own = buildTables(list, memo);
      const outer = open.at(-1);
      const node: Node = { prefix, own, outer, joined: own, rest: outer };
      joinOutwards(node, budget);
      open.push(node);
      cut(startOf(prefix), node);
    }
    closeUntil(1n << 128n);
    this.#starts = Uint32Array.from(starts.flatMap(words));
  }

  /**
   * The first rule whose prefix, protocol, port and mode fit; NO_RULE when there is none.
   * @param minLength only prefixes at least this long
   */
  lookup(address: IpAddress, protocol: Protocol, port: number, modes: number, minLength = 0): number {
    let best = NO_RULE;
    let node = this.#find(address);
    if (minLength === 0) {
      for (; node !== undefined; node = node.rest) {
        const table = node.joined[protocol];
        if (table !== undefined) best = Math.min(best, table.lookup(port, modes));
      }
      return best;
    }
    for (; node !== undefined && node.prefix.length >= minLength; node = node.outer) {
      const table = node.own[protocol];
      if (table !== undefined) best = Math.min(best, table.lookup(port, modes));
    }
    return best;
  }

  /** How near the rules come to an address that none of them allows on the port. */
  nearness(address: IpAddress, protocol: Protocol): Nearness {
    const found = this.#find(address);
    for (let node = found; node !== undefined; node = node.rest) {
      if (node.joined[protocol] !== undefined) return 'other-port';
    }
    return found === undefined ? 'none' : 'other-protocol';
  }

  #find(address: IpAddress): Node | undefined {
    let low = 0;
    let high = this.#nodes.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#startsAtOrBefore(4 * middle, address)) low = middle;
      else high = middle - 1;
    }
    return this.#nodes[low];
  }

  #startsAtOrBefore(at: number, { w0, w1, w2, w3 }: IpAddress): boolean {
    const starts = this.#starts;
    if (starts[at] !== w0) return (starts[at] as number) < w0;
    if (starts[at + 1] !== w1) return (starts[at + 1] as number) < w1;
    if (starts[at + 2] !== w2) return (starts[at + 2] as number) < w2;
    return (starts[at + 3] as number) <= w3;
  }
}

function joinOutwards(node: Node, budget: { left: number }): void {
  const outer = node.outer;
  if (outer === undefined) return;
  const size = segmentCount(node.own) + segmentCount(outer.joined);
  if (size > budget.left) return;
  budget.left -= size;
  const joined: ProtocolTables = { ...outer.joined, ...node.own };
  for (const protocol of PROTOCOLS) {
    const [inner, outside]: (PortTable | undefined)[] = [node.own[protocol], outer.joined[protocol]];
    if (inner !== undefined && outside !== undefined) joined[protocol] = mergeTables(inner, outside);
  }
  node.joined = joined;
  node.rest = outer.rest;
}

function segmentCount(tables: ProtocolTables): number {
  return PROTOCOLS.reduce((sum, protocol) => sum + (tables[protocol]?.starts.length ?? 0), 0);
}

interface Group {
  readonly prefix: Prefix;
  readonly list: Claim[];
}

/** By first address, outer prefixes before inner ones. */
function groupByPrefix(claims: readonly Claim[], family: 4 | 6): Group[] {
  const groups = new Map<string, Group>();
  for (const claim of claims) {
    for (const prefix of claim.rule.prefixes) {
      if (prefix.network.family !== family) continue;
      const key = formatPrefix(prefix);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, { prefix, list: [claim] });
      else group.list.push(claim);
    }
  }
  return [...groups.values()].sort((a, b) => {
    const [x, y] = [startOf(a.prefix), startOf(b.prefix)];
    if (x !== y) return x < y ? -1 : 1;
    return a.prefix.length - b.prefix.length;
  });
}

function startOf({ network }: Prefix): bigint {
  const { w0, w1, w2, w3 } = network;
  return (BigInt(w0) << 96n) | (BigInt(w1) << 64n) | (BigInt(w2) << 32n) | BigInt(w3);
}

/** The first value behind the prefix, IPv4 standing in the upper 32 of 128 bits. */
function endOf(prefix: Prefix): bigint {
  return startOf(prefix) + (1n << (128n - BigInt(prefix.length)));
}

function words(value: bigint): number[] {
  return [96n, 64n, 32n, 0n].map((shift) => Number((value >> shift) & 0xffffffffn));
}
