import { PosternError } from '../../shared/errors.ts';
import { type Ds, parseDs } from './ds.ts';
import { DenialEvidence } from './evidence.ts';
import type { Work } from './limits.ts';
import type { DomainName } from './name.ts';
import { aliasTarget, type Response, type RRset } from './rrset.ts';
import { RCODE, TYPE } from './types.ts';
import { type Signer, verifyRrset } from './verify.ts';

/** What a DS question finds out: no zone cut, a cut that is proven to be unsigned, or the child's DS records. */
export type DsAnswer =
  | { readonly kind: 'none'; readonly ttlSeconds: number }
  | { readonly kind: 'unsigned'; readonly ttlSeconds: number; readonly reason?: string }
  | { readonly kind: 'ds'; readonly ttlSeconds: number; readonly records: readonly Ds[] };

/** What an answer to a DS question proves of the name below `zone`. */
export async function readDs(
  response: Response,
  zone: Signer,
  child: DomainName,
  epochSeconds: number,
  work: Work,
): Promise<DsAnswer> {
  const rrset = response.answer.find(child, TYPE.DS);
  if (rrset !== undefined) {
    const { ttlSeconds } = await verifyRrset(rrset, zone, epochSeconds, work);
    const records = rrset.rdata.map((rdata) => parseDs(rdata)).filter((ds) => ds !== undefined);
    return { kind: 'ds', ttlSeconds, records };
  }
  const alias = aliasAt(response, child);
  const evidence = await DenialEvidence.collect(response.authority, zone, epochSeconds, work);
  if (alias !== undefined) {
    // An alias has no other data beside it, and nothing is below a DNAME: no zone begins here.
    const { ttlSeconds, expandedFrom } = await verifyRrset(alias, zone, epochSeconds, work);
    if (expandedFrom === undefined) return { kind: 'none', ttlSeconds };
    const kind = evidence.expansion(child, expandedFrom) === 'secure' ? 'none' : 'unsigned';
    return { kind, ttlSeconds: Math.min(ttlSeconds, evidence.ttlSeconds) };
  }
  return readDsDenial(response, evidence, zone, child);
}

function readDsDenial(
  response: Response,
  evidence: DenialEvidence,
  zone: Signer,
  child: DomainName,
): DsAnswer {
  if (!response.hasSignatures) {
    throw new PosternError(
      'ERR_DNS_SIGNATURE_MISSING',
      `the answer for ${child} DS is not signed by ${zone.name}`,
    );
  }
  const denial = evidence.deny(child, TYPE.DS, response.rcode === RCODE.NXDOMAIN);
  const { ttlSeconds } = evidence;
  if (denial.kind === 'unchecked') return { kind: 'unsigned', ttlSeconds, reason: denial.reason };
  if (denial.optOut === true) {
    return {
      kind: 'unsigned',
      ttlSeconds,
      reason: `${zone.name} proves, with opt-out, that ${child} has no DS`,
    };
  }
  const isDelegation = denial.kind === 'nodata' && denial.types?.has(TYPE.NS) === true;
  return { kind: isDelegation ? 'unsigned' : 'none', ttlSeconds };
}

/** The alias that an answer gives for the name itself: a DNAME above it (whose CNAME is unsigned) or a CNAME. */
function aliasAt(response: Response, name: DomainName): RRset | undefined {
  const cname = response.answer.find(name, TYPE.CNAME);
  if (cname !== undefined && cname.signatures.length > 0) return aliasTarget(cname) && cname;
  for (let count = 1; count < name.labelCount; count += 1) {
    const dname = response.answer.find(name.suffix(count), TYPE.DNAME);
    if (dname !== undefined) return dname;
  }
  return cname;
}
