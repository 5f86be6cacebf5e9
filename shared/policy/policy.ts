import * as v from 'valibot';
import { parseConfig, readConfig } from '../config/load.ts';
import type { Problem } from '../errors.ts';
import { policyConflicts } from './conflicts.ts';
import { type IngressBody, ingressSchema } from './ingress-schema.ts';
import { type RuleBody, ruleSchema } from './schema.ts';
import type { Egress, IngressRule, Policy } from './types.ts';

function egressOf(path: string, rules: { allow: readonly RuleBody[]; deny: readonly RuleBody[] }): Egress {
  return {
    allow: rules.allow.map((rule, index) => labelled(rule, `${path}allow[${index}]`)),
    deny: rules.deny.map((rule, index) => labelled(rule, `${path}deny[${index}]`)),
  };
}

function labelled<T extends RuleBody | IngressBody>(
  body: T,
  path: string,
): Omit<T, 'name'> & { label: string; path: string } {
  const { name, ...rest } = body;
  return { label: name ?? path, path, ...rest };
}

function rules(names: boolean) {
  return v.strictObject({
    allow: v.optional(v.array(ruleSchema('allow', names)), []),
    deny: v.optional(v.array(ruleSchema('deny', names)), []),
  });
}

/** The one schema of a policy, to be embedded where a configuration holds one; `policyConflicts` checks the rest. */
export const policySchema: v.GenericSchema<unknown, Policy> = v.pipe(
  v.strictObject({
    version: v.pipe(v.literal(1), v.description('the number 1')),
    egress: v.optional(rules(true), {}),
    ingress: v.optional(v.array(ingressSchema()), []),
  }),
  v.transform(
    ({ egress, ingress }): Policy => ({
      version: 1,
      egress: egressOf('egress.', egress),
      ingress: ingress.map((body, index): IngressRule => labelled(body, `ingress[${index}]`)),
    }),
  ),
);

/**
 * The operator's guard: the same rules without names, for a parent's configuration. Labels are paths from
 * `guard`; give the result to `compileEgress`.
 */
export const guardSchema: v.GenericSchema<unknown, Egress> = v.pipe(
  rules(false),
  v.transform((egress) => egressOf('guard.', egress)),
);

/**
 * @param source names the text in messages
 * @throws PosternError ERR_CONFIG_INVALID with every problem
 */
export function parsePolicy(text: string, source: string): Policy {
  return parseConfig(text, source, policySchema, policyConflicts, salvagedConflicts);
}

/** @throws PosternError ERR_CONFIG_UNREADABLE, ERR_CONFIG_INVALID */
export function readPolicy(file: string): Promise<Policy> {
  return readConfig(file, policySchema, policyConflicts, salvagedConflicts);
}

/** The conflicts among the entries that are sound, of a file that has others. */
function salvagedConflicts(value: unknown): Problem[] {
  const egress = memberOf(value, 'egress');
  return policyConflicts({
    version: 1,
    egress: {
      allow: sound(memberOf(egress, 'allow'), ruleSchema('allow', true), 'egress.allow'),
      deny: sound(memberOf(egress, 'deny'), ruleSchema('deny', true), 'egress.deny'),
    },
    ingress: sound(memberOf(value, 'ingress'), ingressSchema(), 'ingress'),
  });
}

function memberOf(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  return Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined;
}

function sound<T extends RuleBody | IngressBody>(
  entries: unknown,
  schema: v.GenericSchema<unknown, T>,
  path: string,
) {
  if (!Array.isArray(entries)) return [];
  return entries.flatMap((entry, index) => {
    const result = v.safeParse(schema, entry);
    return result.success ? [labelled(result.output, `${path}[${index}]`)] : [];
  });
}
