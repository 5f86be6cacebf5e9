import { PosternError } from '../../shared/errors.ts';
import type { CompiledPolicy } from '../../shared/policy/compile.ts';
import { decide } from '../../shared/policy/decide.ts';
import { patternMatches } from '../../shared/policy/name.ts';
import type { EgressRule, Policy } from '../../shared/policy/types.ts';

/** Every port of a name has a listener of its own; a rule for "all high ports" is for the proxies. */
export const PORTS_PER_NAME_MAX = 256;

/**
 * The TCP ports on which the name may be dialled, ascending.
 * @throws PosternError ERR_FLOW_LIMIT where there are more than PORTS_PER_NAME_MAX
 */
export function portsOf(policy: CompiledPolicy, name: string): number[] {
  const rules = policy.egress.allow.filter(
    (rule) => isNamedTcp(rule) && rule.fqdn.some((pattern) => patternMatches(pattern, name)),
  );
  if (rules.some((rule) => portCount(rule) > PORTS_PER_NAME_MAX)) throw tooMany(name);
  const ports = new Set(rules.flatMap(portList));
  const allowed = [...ports].filter(
    (port) => decide(policy, { protocol: 'tcp', port, name }).verdict === 'allow',
  );
  if (allowed.length > PORTS_PER_NAME_MAX) throw tooMany(name);
  return allowed.sort((a, b) => a - b);
}

/** The first rule that names hosts with more ports than can be listened on. */
export function overwideRule({ egress }: Policy): EgressRule | undefined {
  return egress.allow.find((rule) => isNamedTcp(rule) && portCount(rule) > PORTS_PER_NAME_MAX);
}

/** The ports of every rule that names hosts. */
export function namedPorts({ egress }: Pick<CompiledPolicy, 'egress'>): number[] {
  return [...new Set(egress.allow.filter(isNamedTcp).flatMap(portList))];
}

function isNamedTcp({ fqdn, protocols }: EgressRule): boolean {
  return fqdn.length > 0 && protocols.includes('tcp');
}

function portCount({ ports }: EgressRule): number {
  return ports.reduce((count, { from, to }) => count + to - from + 1, 0);
}

function portList({ ports }: EgressRule): number[] {
  return ports.flatMap(({ from, to }) => Array.from({ length: to - from + 1 }, (_, index) => from + index));
}

function tooMany(name: string): PosternError {
  const text = `the rules allow ${name} on more than ${PORTS_PER_NAME_MAX} ports, too many to listen on`;
  return new PosternError('ERR_FLOW_LIMIT', text);
}
