import { PosternError } from '../../shared/errors.ts';
import type { Authentic, Authenticator } from './authenticate.ts';
import type { Work } from './limits.ts';
import type { DomainName } from './name.ts';
import { aliasTarget, type Response, type RRset } from './rrset.ts';
import { RCODE, TYPE } from './types.ts';
import { describe } from './verify.ts';

/** One link of an answer: the data of a name, an alias to another, or its proven absence. */
export interface Step {
  readonly kind: 'answer' | 'alias' | 'absent';
  readonly name: DomainName;
  readonly rrsets: readonly RRset[];
  /** Where an alias leads. */
  readonly target?: DomainName;
  readonly rcode: number;
  readonly soa?: RRset | undefined;
  /** One for each thing that had to be authentic; the weakest is the step's state. */
  readonly parts: readonly Authentic[];
}

const RANK = { secure: 0, insecure: 1, indeterminate: 2 } as const;

/** The first of those that are worth least. */
export function weakest<T extends { readonly state: Authentic['state'] }>(
  parts: readonly T[],
): T | undefined {
  return parts.reduce<T | undefined>(
    (worst, part) => (worst === undefined || RANK[part.state] > RANK[worst.state] ? part : worst),
    undefined,
  );
}

/** Empty where it is secure. */
export function whyNotSecure(part: Authentic): string {
  if (part.state === 'secure') return '';
  if (part.reason !== undefined) return part.reason;
  const { status } = part;
  if (status.state === 'insecure') return status.reason;
  return 'no trust anchor encloses the name';
}

/** True where an answer to another question also says something of this name. */
export function speaksOf(response: Response, name: DomainName, type: number): boolean {
  if (
    response.answer.find(name, type) ??
    response.answer.find(name, TYPE.CNAME) ??
    dnameAbove(response, name)
  ) {
    return true;
  }
  return response.authority.rrsets.some((rrset) => name.isWithin(rrset.name) && rrset.type === TYPE.SOA);
}

/** The RRsets of an unproven answer that lead from the name to its data. */
export function chainIn(response: Response, name: DomainName, type: number): RRset[] {
  const chain: RRset[] = [];
  const seen = new Set<string>();
  let current: DomainName | undefined = name;
  while (current !== undefined && !seen.has(current.key)) {
    seen.add(current.key);
    const exact = response.answer.find(current, type);
    const alias: RRset | undefined = exact ?? response.answer.find(current, TYPE.CNAME);
    if (alias !== undefined) chain.push(alias);
    current = exact !== undefined || alias === undefined ? undefined : aliasTarget(alias);
  }
  return chain;
}

/**
 * What `response` says of (`name`, `type`), authenticated; records that are about anything else are not looked at.
 * @throws PosternError ERR_DNS_*: bogus
 */
export async function readStep(
  response: Response,
  name: DomainName,
  type: number,
  authenticator: Authenticator,
  work: Work,
): Promise<Step> {
  if (type === TYPE.ANY) {
    const rrsets = response.answer.at(name);
    if (rrsets.length > 0) return positive(response, name, rrsets, authenticator, work);
  }
  const exact = response.answer.find(name, type);
  const cname = response.answer.find(name, TYPE.CNAME);
  const dname = dnameAbove(response, name, (owner) => authenticator.reaches(owner, name));
  const isSynthesized = dname !== undefined && (cname === undefined || cname.signatures.length === 0);
  if (exact !== undefined && !(type === TYPE.CNAME && isSynthesized)) {
    return positive(response, name, [exact], authenticator, work);
  }
  if (isSynthesized) return throughDname(response, name, type, dname, authenticator, work);
  if (cname !== undefined) {
    const target = aliasTarget(cname);
    if (target === undefined) throw severalAliases(cname);
    const part = await authenticator.rrset(cname, response, work);
    return { kind: 'alias', name, rrsets: [cname], target, rcode: RCODE.NOERROR, parts: [part] };
  }
  const denial = await authenticator.denial(name, type, response, work);
  const rcode = denial.kind === 'nxdomain' ? RCODE.NXDOMAIN : RCODE.NOERROR;
  return { kind: 'absent', name, rrsets: [], rcode, soa: denial.soa, parts: [denial] };
}

async function positive(
  response: Response,
  name: DomainName,
  rrsets: readonly RRset[],
  authenticator: Authenticator,
  work: Work,
): Promise<Step> {
  const parts: Authentic[] = [];
  for (const rrset of rrsets) {
    if ((rrset.type === TYPE.CNAME || rrset.type === TYPE.DNAME) && aliasTarget(rrset) === undefined) {
      throw severalAliases(rrset);
    }
    parts.push(await authenticator.rrset(rrset, response, work));
  }
  return { kind: 'answer', name, rrsets, rcode: RCODE.NOERROR, parts };
}

/**
 * RFC 6672 section 5.3.1: the DNAME is signed and the CNAME follows from it. It is made here; an unsigned one that
 * came along, right or forged, is not looked at.
 */
async function throughDname(
  response: Response,
  name: DomainName,
  type: number,
  dname: RRset,
  authenticator: Authenticator,
  work: Work,
): Promise<Step> {
  const base = aliasTarget(dname);
  if (base === undefined) throw severalAliases(dname);
  const part = await authenticator.rrset(dname, response, work);
  const target = name.rebase(dname.name, base);
  if (target === undefined) {
    return { kind: 'absent', name, rrsets: [dname], rcode: RCODE.YXDOMAIN, parts: [part] };
  }
  const synthesized = {
    name,
    type: TYPE.CNAME,
    ttlSeconds: dname.ttlSeconds,
    rdata: [target.wire],
    signatures: [],
  };
  const kind = type === TYPE.CNAME ? 'answer' : 'alias';
  return { kind, name, rrsets: [dname, synthesized], target, rcode: RCODE.NOERROR, parts: [part] };
}

/** The DNAME nearest the root among those that count: what is below it is no name of the zone. */
function dnameAbove(
  response: Response,
  name: DomainName,
  counts: (owner: DomainName) => boolean = () => true,
): RRset | undefined {
  for (let count = 0; count < name.labelCount; count += 1) {
    const dname = response.answer.find(name.suffix(count), TYPE.DNAME);
    if (dname !== undefined && counts(dname.name)) return dname;
  }
  return undefined;
}

function severalAliases(rrset: RRset): PosternError {
  return new PosternError('ERR_DNS_BOGUS', `${describe(rrset)} has more than one record`);
}
