import { type CompiledPolicy, compileEgress } from '../../shared/policy/compile.ts';
import { type Decision, decide } from '../../shared/policy/decide.ts';
import type { Egress, Protocol } from '../../shared/policy/types.ts';
import { ownAddresses } from './own-addresses.ts';

/** The operator's word on where a guest may connect to, whatever the guest's own policy says. */
export class Guard {
  readonly #compiled: CompiledPolicy;

  /** @param own the parent's own addresses, which only a rule for exactly them opens; for tests */
  constructor(egress: Egress, own: () => ReadonlySet<string> = ownAddresses) {
    this.#compiled = compileEgress(egress, { ownAddresses: own });
  }

  /** An allowed decision carries the address to dial: the IPv4 address for an IPv4-mapped one. */
  decide(protocol: Protocol, address: string, port: number): Decision {
    return decide(this.#compiled, { protocol, address, port });
  }
}
