import { buildTables, type Claim, NO_RULE, type ProtocolTables } from './port-table.ts';
import type { Protocol } from './types.ts';

interface Node {
  readonly children: Map<string, Node>;
  exact?: ProtocolTables;
  /** Rules `*.X`, kept at X. */
  one?: ProtocolTables;
  /** Rules `**.X`, kept at X. */
  any?: ProtocolTables;
}

/**
 * Name patterns as a tree of labels from the right. A question walks as many labels as the rules have, whatever the
 * length of the name asked for: long hostile names cost nothing.
 */
export class NameIndex {
  readonly #root: Node = { children: new Map() };

  /** @param claims ascending by index */
  constructor(claims: readonly Claim[]) {
    const byPattern = new Map<string, Claim[]>();
    for (const claim of claims) {
      for (const pattern of claim.rule.fqdn) {
        const list = byPattern.get(pattern);
        if (list === undefined) byPattern.set(pattern, [claim]);
        else list.push(claim);
      }
    }
    for (const [pattern, list] of byPattern) this.#insert(pattern, buildTables(list));
  }

  #insert(pattern: string, tables: ProtocolTables): void {
    const labels = pattern.split('.');
    const star = labels[0] === '*' || labels[0] === '**' ? labels.shift() : undefined;
    let node = this.#root;
    for (const label of labels.reverse()) {
      let child = node.children.get(label);
      if (child === undefined) {
        child = { children: new Map() };
        node.children.set(label, child);
      }
      node = child;
    }
    if (star === undefined) node.exact = tables;
    else if (star === '*') node.one = tables;
    else node.any = tables;
  }

  /** The first rule whose pattern, protocol, port and mode fit; NO_RULE when there is none. */
  lookup(name: string, protocol: Protocol, port: number, modes: number): number {
    let best = NO_RULE;
    this.#visit(name, (tables) => {
      const table = tables[protocol];
      if (table !== undefined) best = Math.min(best, table.lookup(port, modes));
    });
    return best;
  }

  /** Whether any rule's pattern fits the name at all, or with this protocol. */
  names(name: string, protocol?: Protocol): boolean {
    let found = false;
    this.#visit(name, (tables) => {
      found ||= protocol === undefined || tables[protocol] !== undefined;
    });
    return found;
  }

  #visit(name: string, visit: (tables: ProtocolTables) => void): void {
    let node: Node | undefined = this.#root;
    let end = name.length;
    while (end > 0) {
      const dot = name.lastIndexOf('.', end - 1);
      node = node.children.get(name.slice(dot + 1, end));
      if (node === undefined) return;
      end = dot;
      if (end <= 0) break;
      if (node.any !== undefined) visit(node.any);
      if (node.one !== undefined && name.lastIndexOf('.', end - 1) < 0) visit(node.one);
    }
    if (node.exact !== undefined) visit(node.exact);
  }
}
