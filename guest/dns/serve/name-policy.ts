import type { CompiledPolicy } from '../../../shared/policy/compile.ts';
import { decide } from '../../../shared/policy/decide.ts';
import type { DnssecState, EgressRule, Protocol } from '../../../shared/policy/types.ts';

/** What the resolver has to know of the policy: it is asked before anything leaves the guest. */
export interface NamePolicy {
  /** The name may be dialled on some port, and so may be asked for. */
  mayResolve(name: string): boolean;
  /** The address may be dialled under the name on some port, its answer having validated so. */
  mayBind(name: string, address: string, dnssec: DnssecState): boolean;
}

interface Probe {
  readonly protocol: Protocol;
  readonly port: number;
}

/** An application that asks for a name has not said its port yet: the policy is asked for each that a rule knows. */
export function namePolicy(policy: CompiledPolicy): NamePolicy {
  const probes = probesOf(policy.egress.allow, policy.egress.deny);
  return {
    mayResolve: (name) => probes.some((probe) => decide(policy, { ...probe, name }).verdict === 'allow'),
    mayBind: (name, address, dnssec) =>
      probes.some((probe) => decide(policy, { ...probe, name, address, dnssec }).verdict === 'allow'),
  };
}

/** Where an allowed range begins, and where a denied one inside it ends: if any port of it is allowed, one of these is. */
function probesOf(allow: readonly EgressRule[], deny: readonly EgressRule[]): Probe[] {
  const probes = new Map<string, Probe>();
  const starts = [...allow.flatMap(({ ports }) => ports.map(({ from }) => from))];
  const ends = deny.flatMap(({ ports }) => ports.map(({ to }) => to + 1)).filter((port) => port <= 0xffff);
  for (const { fqdn, protocols, ports } of allow) {
    if (fqdn.length === 0) continue;
    const inside = [...starts, ...ends].filter((port) =>
      ports.some(({ from, to }) => from <= port && port <= to),
    );
    for (const protocol of protocols) {
      for (const port of protocol === 'icmp' ? [0] : inside)
        probes.set(`${protocol} ${port}`, { protocol, port });
    }
  }
  return [...probes.values()];
}
