import * as v from 'valibot';
import { guardSchema } from '../../shared/policy/policy.ts';
import { ruleSchema } from '../../shared/policy/schema.ts';
import type { Egress, EgressRule } from '../../shared/policy/types.ts';

/** What an operator means by `allow: any`; special addresses still need a rule that names them. */
const ANY = v.parse(ruleSchema('allow', false), {
  name: 'any',
  cidr: ['0.0.0.0/0', '::/0'],
  ports: '1-65535',
  protocol: ['tcp', 'udp', 'icmp'],
});

const anySchema: v.GenericSchema<unknown, Egress> = v.pipe(
  v.strictObject({
    allow: v.literal('any', 'a list of rules, or the word any'),
    deny: v.optional(v.array(ruleSchema('deny', false)), []),
  }),
  v.transform(({ deny }) => ({
    allow: [{ ...ANY, label: 'any', path: 'guard.allow' }],
    deny: deny.map(({ name, ...rule }, index) => {
      const path = `guard.deny[${index}]`;
      return { ...rule, label: name ?? path, path };
    }),
  })),
);

/**
 * What the operator lets a guest reach: rules of the policy grammar without names. There is no default: an operator
 * who means everything says `allow: any`.
 */
export const egressSchema = v.pipe(
  v.union([guardSchema, anySchema], 'egress rules, as {allow: […]} or {allow: any}'),
  v.transform(({ allow, deny }): Egress => ({ allow: allow.map(placed), deny: deny.map(placed) })),
);

/** The rule with the path that it has in a guest's entry. */
function placed(rule: EgressRule): EgressRule {
  const path = rule.path.replace(/^guard/, 'egress');
  return { ...rule, path, label: rule.label === rule.path ? path : rule.label };
}
