import type { IpAddress } from './address.ts';
import { NameIndex } from './name-index.ts';
import { ANY_MODE, type Claim, NO_RULE, type TableMemo } from './port-table.ts';
import { PrefixIndex } from './prefix-index.ts';
import { embeddedAddresses } from './special.ts';
import type { Egress, EgressRule, IngressRule, Policy, Protocol } from './types.ts';

export interface CompileOptions {
  /**
   * Further addresses (canonical text) that only a rule for exactly them allows: the parent's own. Asked at every
   * decision, since interfaces come and go; it should answer from memory.
   */
  readonly ownAddresses?: () => ReadonlySet<string>;
}

/** A policy with its indices; built once a policy, asked millions of times. Immutable. */
export interface CompiledPolicy {
  readonly egress: Egress;
  readonly ingress: readonly IngressRule[];
  readonly allow: RuleIndex;
  readonly deny: RuleIndex;
  readonly ownAddresses: () => ReadonlySet<string>;
}

/** The allow rules, or the deny rules, of one policy. Answers are indices into `rules`, or NO_RULE. */
export class RuleIndex {
  readonly rules: readonly EgressRule[];
  readonly names: NameIndex;
  readonly #v4: PrefixIndex;
  readonly #v6: PrefixIndex;

  constructor(rules: readonly EgressRule[]) {
    const claims: Claim[] = rules.map((rule, index) => ({ rule, index }));
    this.rules = rules;
    const memo: TableMemo = new Map();
    this.names = new NameIndex(claims, memo);
    this.#v4 = new PrefixIndex(claims, 4, memo);
    this.#v6 = new PrefixIndex(claims, 6, memo);
  }

  addresses(address: IpAddress): PrefixIndex {
    return address.family === 4 ? this.#v4 : this.#v6;
  }

  /** The first address rule that holds the address or any IPv4 address embedded in it. */
  lookupEmbedded(address: IpAddress, protocol: Protocol, port: number): number {
    let best = this.addresses(address).lookup(address, protocol, port, ANY_MODE);
    if (address.family === 4) return best;
    for (const inner of embeddedAddresses(address)) {
      best = Math.min(best, this.#v4.lookup(inner.address, protocol, port, ANY_MODE));
    }
    return best;
  }

  rule(index: number): EgressRule | undefined {
    return index === NO_RULE ? undefined : this.rules[index];
  }
}

export function compilePolicy(policy: Policy, options: CompileOptions = {}): CompiledPolicy {
  return compileRules(policy.egress, policy.ingress, options);
}

/** For the operator's guard, which has egress rules alone. */
export function compileEgress(egress: Egress, options: CompileOptions = {}): CompiledPolicy {
  return compileRules(egress, [], options);
}

const NO_ADDRESSES: ReadonlySet<string> = new Set();

function compileRules(
  egress: Egress,
  ingress: readonly IngressRule[],
  options: CompileOptions,
): CompiledPolicy {
  return {
    egress,
    ingress,
    allow: new RuleIndex(egress.allow),
    deny: new RuleIndex(egress.deny),
    ownAddresses: options.ownAddresses ?? (() => NO_ADDRESSES),
  };
}
