import type { RRset } from './rrset.ts';
import type { Step } from './step.ts';

/** Objects around the octets of one cached link. */
const STEP_OVERHEAD_BYTES = 400;

/** What a link holds in memory while it is cached. */
export function stepBytes(step: Step): number {
  const proof = step.parts.flatMap((part) => part.proof ?? []);
  const held = [...step.rrsets, ...proof, ...(step.soa ? [step.soa] : [])];
  return held.reduce((sum, rrset) => sum + rrsetBytes(rrset), STEP_OVERHEAD_BYTES);
}

/** Objects around an RRset's octets, those of its parsed signatures included. */
function rrsetBytes({ name, rdata, signatures }: RRset): number {
  const [perName, perRecord, perSignature] = [300, 200, 700];
  const records = rdata.reduce((sum, one) => sum + one.length + perRecord, 0);
  return (
    records +
    signatures.reduce((sum, one) => sum + 2 * one.rdata.length + perSignature, perName + name.key.length)
  );
}
