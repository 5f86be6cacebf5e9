import { answerLines } from './presentation.ts';
import { rcodeName } from './types.ts';
import { questionText, type Verdict } from './verdict.ts';
import type { SecureZone, ZoneStatus } from './zone-status.ts';

/** One zone on the way from an anchor, as `postern resolve` prints it. */
export interface ChainLine {
  readonly zone: string;
  readonly state: 'secure' | 'insecure';
  /** What vouches for it, or why nothing does. */
  readonly via: string;
  readonly signedBy?: string;
}

/** Every zone that the verdict rests on, once, parents first. */
export function chainLines(verdict: Verdict): ChainLine[] {
  const lines = new Map<string, ChainLine>();
  for (const status of verdict.statuses) {
    for (const line of statusLines(status)) lines.set(`${line.zone} ${line.state}`, line);
  }
  return [...lines.values()];
}

function statusLines(status: ZoneStatus): ChainLine[] {
  if (status.state === 'indeterminate') return [];
  if (status.state === 'secure') return zoneLines(status.zone);
  const line = { zone: status.at.toString(), state: 'insecure' as const, via: status.reason };
  return [...zoneLines(status.parent), line];
}

function zoneLines(zone: SecureZone | undefined): ChainLine[] {
  if (zone === undefined) return [];
  const line = {
    zone: zone.name.toString(),
    state: 'secure' as const,
    via: zone.entry,
    signedBy: zone.signedBy,
  };
  return [...zoneLines(zone.parent), line];
}

/** The chain of trust as a person would draw it: one zone a line, each one step further in. */
export function explain(verdict: Verdict): string {
  const lines = [`${questionText(verdict)}: ${verdict.state}, ${rcodeName(verdict.rcode)}`];
  if (verdict.reason !== '') lines.push(`because ${verdict.reason}`);
  for (const [link, status] of verdict.statuses.entries()) {
    lines.push('', `chain of trust ${verdict.statuses.length > 1 ? `of link ${link + 1}` : ''}`.trimEnd());
    const zones = statusLines(status);
    if (zones.length === 0) lines.push('  (no trust anchor encloses the name)');
    for (const [depth, zone] of zones.entries()) lines.push(drawZone(zone, depth));
    const isLast = link === verdict.statuses.length - 1;
    if (verdict.state === 'bogus' && isLast) lines.push(`${indentOf(zones.length)}✗ here the chain breaks`);
  }
  if (verdict.answers.length > 0) lines.push('', 'answer');
  for (const rrset of verdict.answers) {
    for (const line of answerLines(rrset, verdict.ttlSeconds))
      lines.push(`  ${line.name} ${line.ttl} ${line.type} ${line.data}`);
  }
  return `${lines.join('\n')}\n`;
}

function drawZone(zone: ChainLine, depth: number): string {
  const indent = indentOf(depth);
  if (zone.state === 'insecure') return `${indent}└─ ${zone.zone}  INSECURE: ${zone.via}`;
  return `${indent}└─ ${zone.zone}  ${zone.via}; its keys are signed by ${zone.signedBy}`;
}

function indentOf(depth: number): string {
  return `  ${'   '.repeat(depth)}`;
}
