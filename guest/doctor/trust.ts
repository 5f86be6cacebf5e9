import type { Finding } from '../../shared/cli/checks.ts';
import { type TrustAnchor, TrustAnchors } from '../dns/anchors.ts';
import { parseZoneKey } from '../dns/keys.ts';
import { DomainName } from '../dns/name.ts';
import { isUsableAnchor } from '../dns/published-keys.ts';

/**
 * Keys that sign the root zone's key set, by key tag: from when and, where it is known, until when (IANA,
 * https://www.iana.org/dnssec; the last hand-over as it was planned). A tag that is not here is newer, or not the root's.
 */
const ROOT_KEYS = new Map([
  [19_036, { from: '2010-07-15', until: '2018-10-11' }],
  [20_326, { from: '2018-10-11', until: '2026-10-11' }],
  [38_696, { from: '2026-10-11', until: undefined }],
]);

interface Trusting {
  readonly trustAnchors: readonly TrustAnchor[];
  readonly negativeTrustAnchors: readonly string[];
}

/** Whether the trust anchors can be used here, lead to the root, and to keys that sign it now. */
export function anchorFindings(config: Trusting, nowMs: number): Finding[] {
  const negative = config.negativeTrustAnchors.map((name) => DomainName.parse(name));
  const root = new TrustAnchors(config.trustAnchors, negative).closest(DomainName.parse('.'));
  const useless = config.trustAnchors.filter((anchor) => !isUsableAnchor(anchor));
  const findings = useless.map(({ name }): Finding => {
    const detail = 'of an algorithm or digest that is unknown here: what is below is taken as unsigned';
    return {
      what: `trust anchor of ${name}`,
      state: 'failed',
      detail,
      advice: 'name a key that can be checked',
    };
  });
  if (root === undefined) findings.push(withoutRoot(config.trustAnchors));
  else if (root.negative) findings.push(notValidated());
  else if (!useless.includes(root)) findings.push(rootFinding(root, nowMs));
  return findings;
}

const WHAT = 'trust anchor of the root';
const ADVICE =
  'take trustAnchor out of the configuration to use what is shipped, or compare it with https://data.iana.org/root-anchors/root-anchors.xml';

function rootFinding(root: TrustAnchor, nowMs: number): Finding {
  const tags = [...new Set([...root.ds, ...root.keys.map(parseZoneKey)].map((one) => one?.keyTag ?? 0))];
  const known = tags.map((tag) => ({ tag, period: ROOT_KEYS.get(tag) }));
  const isCurrent = known.some(({ period }) => period === undefined || covers(period, nowMs));
  if (isCurrent) return { what: WHAT, state: 'ok', detail: `keys ${tags.join(', ')}` };
  const periods = known.map(
    ({ tag, period }) => `${tag} from ${period?.from} to ${period?.until ?? 'further on'}`,
  );
  const detail = `no key that signs the root on ${new Date(nowMs).toISOString().slice(0, 10)}: ${periods.join(', ')}`;
  return { what: WHAT, state: 'failed', detail, advice: ADVICE };
}

function covers({ from, until }: { from: string; until: string | undefined }, nowMs: number): boolean {
  return Date.parse(from) <= nowMs && (until === undefined || nowMs < Date.parse(until));
}

function withoutRoot(anchors: readonly TrustAnchor[]): Finding {
  const detail = `only of ${anchors.map(({ name }) => name.toString()).join(', ')}: no other name can be validated`;
  return { what: WHAT, state: 'missing', detail, advice: ADVICE };
}

function notValidated(): Finding {
  const detail = 'negativeTrustAnchors names the root: no answer is validated unless a closer anchor says so';
  return { what: WHAT, state: 'missing', detail, advice: 'name the zones that are meant' };
}
