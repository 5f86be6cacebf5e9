import type { Audit } from '../audit.ts';
import type { DiskReport } from '../disk/disk.ts';
import type { FlowTable } from '../flow/flow-table.ts';
import { formatNames, type NamesReport } from '../resolve/report.ts';
import type { SessionState } from '../session/client.ts';

/** Live flows that one report lists; the count tells how many there are. */
export const REPORT_FLOWS_MAX = 200;

export interface FlowReport {
  readonly flowId: number;
  readonly via: string;
  readonly to: string;
  readonly client?: string;
  readonly rule?: string;
  readonly sentBytes: number;
  readonly receivedBytes: number;
  readonly seconds: number;
}

/** What `postern guest status --json` prints. Fields are added, never renamed. */
export interface StatusReport {
  readonly version: 1;
  readonly startedAt: string;
  readonly parent: string;
  readonly session: SessionState;
  readonly listeners: Readonly<Record<string, string>>;
  readonly volumes: readonly DiskReport[];
  readonly flows: { readonly count: number; readonly shown: readonly FlowReport[] };
  readonly totals: Audit['totals'];
  /** How often each reason code came up. */
  readonly refusals: Readonly<Record<string, number>>;
  readonly reapedCount: number;
  /** Where the configuration names resolvers. */
  readonly names?: NamesReport;
}

export interface ReportSources {
  readonly startedAt: Date;
  readonly parent: string;
  readonly session: SessionState;
  readonly listeners: Readonly<Record<string, string>>;
  readonly volumes: readonly DiskReport[];
  readonly table: FlowTable;
  readonly audit: Audit;
  readonly reapedCount: number;
  readonly names: NamesReport | undefined;
}

export function buildReport(sources: ReportSources): StatusReport {
  const { startedAt, parent, session, listeners, volumes, table, audit, reapedCount } = sources;
  const shown: FlowReport[] = [];
  for (const { flowId, labels, sentBytes, receivedBytes, startedAt: since } of table.values()) {
    if (shown.length === REPORT_FLOWS_MAX) break;
    const isMany = labels.protocol === 'udp' && labels.port === 0;
    const to = isMany ? 'datagrams' : `${labels.name ?? labels.address ?? '?'} port ${labels.port}`;
    const { client, rule, via } = labels;
    const seconds = Math.round((Date.now() - since.getTime()) / 1000);
    shown.push({
      flowId,
      via,
      to,
      ...(client && { client }),
      ...(rule && { rule }),
      sentBytes,
      receivedBytes,
      seconds,
    });
  }
  return {
    version: 1,
    startedAt: startedAt.toISOString(),
    parent,
    session,
    listeners,
    volumes,
    flows: { count: table.count, shown },
    totals: { ...audit.totals },
    refusals: Object.fromEntries(audit.refusedBy),
    reapedCount,
    ...(sources.names && { names: sources.names }),
  };
}

/** For a person. */
export function formatReport(report: StatusReport): string {
  const { session, totals, flows } = report;
  const lines = [
    `session    ${describeSession(session)} (parent ${report.parent})`,
    ...Object.entries(report.listeners).map(([name, where]) => `${name.padEnd(10)} ${where}`),
    `flows      ${flows.count} live, ${totals.opened} opened, ${totals.failed} failed, ${totals.refused} refused`,
    `bytes      ${totals.sentBytes} out, ${totals.receivedBytes} in (of closed flows)`,
  ];
  for (const { name, state, sizeBytes, socket, device, reason } of report.volumes) {
    const where = [socket, device].filter((place) => place !== undefined).join(', ');
    lines.push(
      `volume     ${name}: ${state}, ${sizeBytes} bytes at ${where}${reason === undefined ? '' : `; ${reason}`}`,
    );
  }
  for (const flow of flows.shown) {
    const who = flow.client === undefined ? '' : ` from ${flow.client}`;
    lines.push(
      `  ${flow.via} to ${flow.to}${who}: ${flow.sentBytes} out, ${flow.receivedBytes} in, ${flow.seconds} s`,
    );
  }
  lines.push(...formatNames(report.names));
  const refusals = Object.entries(report.refusals);
  if (refusals.length > 0) lines.push('refused or failed, by reason:');
  for (const [reason, count] of refusals) lines.push(`  ${String(count).padStart(6)}  ${reason}`);
  return `${lines.join('\n')}\n`;
}

function describeSession(state: SessionState): string {
  if (state.phase === 'up') return `up, protocol ${state.version}`;
  if (state.phase === 'waiting')
    return `down, ${state.code}: ${state.reason}; next try in ${state.retryMs} ms`;
  return state.phase;
}
