import * as v from 'valibot';
import { ALL_PORTS } from './ports.ts';
import { cidr, dnssec, fqdn, ip, ports, protocol, ruleName, tls } from './rule-fields.ts';
import { type EgressRule, PROTOCOLS, type Protocol } from './types.ts';

const RULE_ENTRIES = {
  name: v.optional(ruleName),
  ip: v.optional(ip),
  cidr: v.optional(cidr),
  ports: v.optional(ports),
  protocol: v.optional(protocol),
};
const NAME_ENTRIES = {
  ...RULE_ENTRIES,
  fqdn: v.optional(fqdn),
  dnssec: v.optional(dnssec),
  tls: v.optional(tls),
};

type RuleInput = v.InferOutput<ReturnType<typeof nameRule>>;
export type RuleBody = Omit<EgressRule, 'label' | 'path'> & { readonly name?: string };

function nameRule() {
  return v.strictObject(NAME_ENTRIES);
}

/** A rule of `effect`; the operator's guard (`names` false) has rules without `fqdn`, since it never sees names. */
export function ruleSchema(effect: 'allow' | 'deny', names: boolean): v.GenericSchema<unknown, RuleBody> {
  const shape: v.GenericSchema<unknown, RuleInput> = names ? nameRule() : v.strictObject(RULE_ENTRIES);
  return v.pipe(
    shape,
    v.rawTransform<RuleInput, RuleBody>(({ dataset, addIssue, NEVER }) => {
      const rule = dataset.value;
      const problems = ruleProblems(rule, effect, names);
      for (const { key, found, expected } of problems) {
        const item = { type: 'object', origin: 'value', input: { ...rule }, key, value: undefined } as const;
        const place = key === '' ? {} : { path: [item] satisfies [v.IssuePathItem] };
        addIssue({ message: expected, input: found, received: found, ...place });
      }
      return problems.length > 0 ? NEVER : ruleBody(rule, effect);
    }),
  );
}

interface RuleProblem {
  readonly key: string;
  readonly found: string;
  readonly expected: string;
}

/** What the keys of one rule must be to each other. */
function ruleProblems(rule: RuleInput, effect: 'allow' | 'deny', names: boolean): RuleProblem[] {
  const problems: RuleProblem[] = [];
  const add = (key: string, found: string, expected: string): void => {
    problems.push({ key, found, expected });
  };
  const kinds = (['fqdn', 'ip', 'cidr'] as const).filter((kind) => rule[kind] !== undefined);
  const wanted = names ? 'exactly one of fqdn, ip and cidr' : 'exactly one of ip and cidr';
  if (kinds.length === 0) add('', 'none of them', wanted);
  if (kinds.length > 1) add(kinds[1] ?? '', kinds.join(' and '), `${wanted} (make two rules of it)`);
  const onlyIcmp = rule.protocol?.every((word) => word === 'icmp') ?? false;
  if (onlyIcmp && rule.ports !== undefined) add('ports', 'ports', 'no ports: ICMP has none');
  if (effect === 'allow' && rule.ports === undefined && !onlyIcmp) {
    add('ports', 'nothing', 'ports: a number, a range such as "8000-8100", or a list of those');
  }
  if (rule.fqdn === undefined && kinds.length > 0) {
    if (rule.dnssec !== undefined) add('dnssec', rule.dnssec, 'dnssec in fqdn rules only');
    if (rule.tls !== undefined) add('tls', rule.tls, 'tls in fqdn rules only');
  }
  if (effect === 'deny' && rule.fqdn !== undefined) {
    if (rule.dnssec !== undefined) add('dnssec', rule.dnssec, 'dnssec in allow rules only');
    if (rule.tls !== undefined) add('tls', rule.tls, 'tls in allow rules only');
  }
  const onlyTcp = rule.protocol?.every((word) => word === 'tcp') ?? true;
  if (effect === 'allow' && rule.tls !== undefined && rule.fqdn !== undefined && !onlyTcp) {
    add('tls', rule.tls, 'tls only where protocol is tcp');
  }
  return problems;
}

function ruleBody(rule: RuleInput, effect: 'allow' | 'deny'): RuleBody {
  const protocols = rule.protocol ?? (effect === 'allow' ? ['tcp'] : denied(rule));
  const hasPorts = protocols.some((word) => word !== 'icmp');
  return {
    ...(rule.name === undefined ? {} : { name: rule.name }),
    fqdn: rule.fqdn ?? [],
    prefixes: rule.ip ?? rule.cidr ?? [],
    protocols,
    ports: hasPorts ? (rule.ports ?? ALL_PORTS) : [],
    dnssec: rule.dnssec ?? 'validate',
    ...(rule.tls === undefined ? {} : { tls: rule.tls }),
  };
}

/** A deny rule without protocol is for all of them; with ports, for those that have ports. */
function denied(rule: RuleInput): readonly Protocol[] {
  return rule.ports === undefined ? PROTOCOLS : ['tcp', 'udp'];
}
