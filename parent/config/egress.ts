import * as v from 'valibot';
import { guardSchema } from '../../shared/policy/policy.ts';

/** What an operator means by `allow: any`; special addresses still need a rule that names them. */
const ANY = [
  { name: 'any', cidr: ['0.0.0.0/0', '::/0'], ports: '1-65535', protocol: ['tcp', 'udp', 'icmp'] },
];

/**
 * What the operator lets a guest reach: rules of the policy grammar without names. There is no default: an operator
 * who means everything says `allow: any`.
 */
export const egressSchema = v.pipe(
  v.looseObject({ allow: v.unknown() }, 'egress rules, as {allow: […]} or {allow: any}'),
  v.transform((egress): unknown => (egress.allow === 'any' ? { ...egress, allow: ANY } : egress)),
  guardSchema,
);
