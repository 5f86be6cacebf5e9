import {
  buildTables,
  type Claim,
  type Nearness,
  NO_RULE,
  type ProtocolTables,
  type TableMemo,
} from './port-table.ts';
import type { Protocol } from './types.ts';

/** A name under which wildcards stand, with the labels that lead to it from the node above. */
interface Node {
  /** Labels that every name below has in common, `b.example.com`; at the root empty. */
  readonly suffix: string;
  /** By the label that stands before the suffix. */
  readonly children: Map<string, Node>;
  /** Rules `*.X`, kept at X. */
  one?: ProtocolTables;
  /** Rules `**.X`, kept at X. */
  any?: ProtocolTables;
}

interface Pattern {
  readonly star: '*' | '**';
  /** Labels from the right. */
  readonly labels: readonly string[];
  readonly tables: ProtocolTables;
}

/**
 * Exact names in a hash; wildcards as a tree of labels from the right in which runs without a branch are one step.
 * A question walks as far as the rules have branches, whatever the length of the name asked for: long hostile names
 * cost no more than short ones.
 */
export class NameIndex {
  readonly #exact = new Map<string, ProtocolTables>();
  readonly #root: Node | undefined;

  /** @param claims ascending by index */
  constructor(claims: readonly Claim[], memo: TableMemo = new Map()) {
    const patterns: Pattern[] = [];
    for (const [pattern, list] of groupByPattern(claims)) {
      const star = /^(\*\*?)\./.exec(pattern)?.[1];
      const tables = buildTables(list, memo);
      if (star === '*' || star === '**') {
        patterns.push({
          star,
          labels: pattern
            .slice(star.length + 1)
            .split('.')
            .reverse(),
          tables,
        });
      } else this.#exact.set(pattern, tables);
    }
    this.#root = patterns.length === 0 ? undefined : buildNode(patterns, 0, '');
  }

  /** The first rule whose pattern, protocol, port and mode fit; NO_RULE when there is none. */
  lookup(name: string, protocol: Protocol, port: number, modes: number): number {
    const exact = this.#exact.get(name)?.[protocol];
    let best = exact === undefined ? NO_RULE : exact.lookup(port, modes);
    for (let node = this.#root; node !== undefined; node = stepDown(node, name)) {
      const any = node.any?.[protocol];
      if (any !== undefined) best = Math.min(best, any.lookup(port, modes));
      const one = isRightBelow(name, node) ? node.one?.[protocol] : undefined;
      if (one !== undefined) best = Math.min(best, one.lookup(port, modes));
    }
    return best;
  }

  /** How near the rules come to a name that none of them allows on the port. */
  nearness(name: string, protocol: Protocol): Nearness {
    const exact = this.#exact.get(name);
    let named = exact !== undefined;
    if (exact?.[protocol] !== undefined) return 'other-port';
    for (let node = this.#root; node !== undefined; node = stepDown(node, name)) {
      const one = isRightBelow(name, node) ? node.one : undefined;
      if (node.any?.[protocol] !== undefined || one?.[protocol] !== undefined) return 'other-port';
      named ||= node.any !== undefined || one !== undefined;
    }
    return named ? 'other-protocol' : 'none';
  }
}

/** The child whose suffix the name ends in with at least one label before it. */
function stepDown({ suffix, children }: Node, name: string): Node | undefined {
  if (children.size === 0) return undefined;
  // `end` is where the label before the suffix ends: before its dot, or at the end of the name for the root.
  const end = suffix === '' ? name.length : name.length - suffix.length - 1;
  const child = children.get(name.slice(name.lastIndexOf('.', end - 1) + 1, end));
  if (child === undefined) return undefined;
  const start = name.length - child.suffix.length;
  return start > 1 && name.charCodeAt(start - 1) === DOT && name.endsWith(child.suffix) ? child : undefined;
}

const DOT = 46;

function isRightBelow(name: string, { one, suffix }: Node): boolean {
  return one !== undefined && name.lastIndexOf('.', name.length - suffix.length - 2) < 0;
}

function groupByPattern(claims: readonly Claim[]): Map<string, Claim[]> {
  const byPattern = new Map<string, Claim[]>();
  for (const claim of claims) {
    for (const pattern of claim.rule.fqdn) {
      const list = byPattern.get(pattern);
      if (list === undefined) byPattern.set(pattern, [claim]);
      else list.push(claim);
    }
  }
  return byPattern;
}

/** The node for patterns that share their first `depth` labels from the right, which `suffix` spells. */
function buildNode(patterns: readonly Pattern[], depth: number, suffix: string): Node {
  const node: Node = { suffix, children: new Map() };
  const byLabel = new Map<string, Pattern[]>();
  for (const pattern of patterns) {
    const label = pattern.labels[depth];
    if (label === undefined) node[pattern.star === '*' ? 'one' : 'any'] = pattern.tables;
    else {
      const list = byLabel.get(label);
      if (list === undefined) byLabel.set(label, [pattern]);
      else list.push(pattern);
    }
  }
  for (const [label, below] of byLabel) {
    const shared = sharedDepth(below, depth + 1);
    const first = below[0]?.labels ?? [];
    node.children.set(label, buildNode(below, shared, first.slice(0, shared).reverse().join('.')));
  }
  return node;
}

/** How many labels all patterns share, of which the first `depth` are known to. */
function sharedDepth(patterns: readonly Pattern[], depth: number): number {
  const first = patterns[0]?.labels ?? [];
  let shared = depth;
  while (shared < first.length && patterns.every(({ labels }) => labels[shared] === first[shared]))
    shared += 1;
  return shared;
}
