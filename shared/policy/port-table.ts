import type { DnssecMode, EgressRule, Protocol } from './types.ts';

/** No rule: greater than every rule's index, so that the least of several answers is the first rule of the file. */
export const NO_RULE = 0x7fffffff;

/** Rules of different DNSSEC modes are kept apart; a question says with a mask which modes will do. */
export const MODE_MASK = { require: 1, validate: 2, off: 4 } as const;
export const ANY_MODE = 7;
const MODES: readonly DnssecMode[] = ['require', 'validate', 'off'];

/** One rule's claim on a key of an index. `index` is its place in the file. */
export interface Claim {
  readonly index: number;
  readonly rule: EgressRule;
}

/**
 * For every port the first rule that claims it, by DNSSEC mode: the port space cut where any rule begins or ends,
 * so that one binary search answers however many rules there are.
 */
export class PortTable {
  /** First port of each segment, ascending from 0. */
  readonly starts: Uint32Array;
  /** Three rule indices a segment, in the order of MODES. */
  readonly first: Int32Array;

  constructor(starts: Uint32Array, first: Int32Array) {
    this.starts = starts;
    this.first = first;
  }

  lookup(port: number, modes: number): number {
    const at = 3 * this.#segment(port);
    const { first } = this;
    let best = NO_RULE;
    if ((modes & 1) !== 0) best = first[at] as number;
    if ((modes & 2) !== 0 && (first[at + 1] as number) < best) best = first[at + 1] as number;
    if ((modes & 4) !== 0 && (first[at + 2] as number) < best) best = first[at + 2] as number;
    return best;
  }

  #segment(port: number): number {
    const { starts } = this;
    let low = 0;
    let high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((starts[middle] as number) <= port) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** One table a protocol that some rule claims; ICMP's only port is 0. */
export interface ProtocolTables {
  tcp?: PortTable;
  udp?: PortTable;
  icmp?: PortTable;
}

/** How near rules come to a destination whose port none of them has. */
export type Nearness = 'none' | 'other-protocol' | 'other-port';

/** Tables by the rules that they hold: a rule with thousands of names and of ports has one table, not thousands. */
export type TableMemo = Map<string, ProtocolTables>;

/** @param claims ascending by index */
export function buildTables(claims: readonly Claim[], memo: TableMemo): ProtocolTables {
  const key = claims.map(({ index }) => index).join();
  const known = memo.get(key);
  if (known !== undefined) return known;
  const tables: ProtocolTables = {};
  memo.set(key, tables);
  for (const protocol of ['tcp', 'udp', 'icmp'] satisfies Protocol[]) {
    const mine = claims.filter(({ rule }) => rule.protocols.includes(protocol));
    if (mine.length > 0) tables[protocol] = buildTable(mine, protocol);
  }
  return tables;
}

function buildTable(claims: readonly Claim[], protocol: Protocol): PortTable {
  const rangesOf = ({ rule }: Claim) => (protocol === 'icmp' ? [{ from: 0, to: 0 }] : rule.ports);
  const cuts = new Set([0]);
  for (const claim of claims) {
    for (const { from, to } of rangesOf(claim)) cuts.add(from).add(to + 1);
  }
  const starts = Uint32Array.from(cuts).sort();
  const place = new Map([...starts].map((start, index) => [start, index]));
  const first = new Int32Array(3 * starts.length).fill(NO_RULE);
  for (const [mode, name] of MODES.entries()) {
    // `free[i]` leads to the first segment from i on that no earlier rule took: each is written once.
    const free = Int32Array.from({ length: starts.length + 1 }, (_, index) => index);
    for (const claim of claims) {
      if (claim.rule.dnssec !== name) continue;
      for (const { from, to } of rangesOf(claim)) {
        const end = place.get(to + 1) ?? starts.length;
        for (let at = find(free, place.get(from) ?? 0); at < end; at = find(free, at)) {
          first[3 * at + mode] = claim.index;
          free[at] = at + 1;
        }
      }
    }
  }
  return new PortTable(starts, first);
}

function find(free: Int32Array, from: number): number {
  let root = from;
  while ((free[root] as number) !== root) root = free[root] as number;
  for (let at = from; at !== root; ) {
    const next = free[at] as number;
    free[at] = root;
    at = next;
  }
  return root;
}

/** What both tables claim, the lesser rule index winning. */
export function mergeTables(a: PortTable, b: PortTable): PortTable {
  const starts = Uint32Array.from(new Set([...a.starts, ...b.starts])).sort();
  const first = new Int32Array(3 * starts.length);
  let inA = 0;
  let inB = 0;
  for (const [index, start] of starts.entries()) {
    while (inA + 1 < a.starts.length && (a.starts[inA + 1] as number) <= start) inA += 1;
    while (inB + 1 < b.starts.length && (b.starts[inB + 1] as number) <= start) inB += 1;
    for (let mode = 0; mode < 3; mode += 1) {
      first[3 * index + mode] = Math.min(
        a.first[3 * inA + mode] as number,
        b.first[3 * inB + mode] as number,
      );
    }
  }
  return new PortTable(starts, first);
}
