import { type CompileOptions, compilePolicy } from '../../shared/policy/compile.ts';
import { type Decision, decide } from '../../shared/policy/decide.ts';
import { parsePolicy } from '../../shared/policy/policy.ts';
import type { Destination, Lease } from '../../shared/policy/types.ts';

export type To = Partial<Destination>;

/** A policy from YAML, asked in short: TCP to port 443 unless said otherwise; `verdict reason [rule]`. */
export class Asked {
  readonly #policy;

  constructor(egress: string, options: CompileOptions = {}) {
    const indented = egress.replace(/^/gm, '  ');
    this.#policy = compilePolicy(parsePolicy(`version: 1\negress:\n${indented}\n`, 'test'), options);
  }

  decide(to: To, leases?: Readonly<Record<string, readonly Lease[]>>): Decision {
    const view = leases === undefined ? undefined : { namesOf: (address: string) => leases[address] ?? [] };
    return decide(this.#policy, { protocol: 'tcp', port: 443, ...to }, view);
  }

  brief(to: To, leases?: Readonly<Record<string, readonly Lease[]>>): string {
    const { verdict, reason, rule } = this.decide(to, leases);
    return [verdict, reason, ...(rule === undefined ? [] : [rule])].join(' ');
  }
}
