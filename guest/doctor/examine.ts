import { stat } from 'node:fs/promises';
import type { Finding } from '../../shared/cli/checks.ts';
import { isPosternError } from '../../shared/errors.ts';
import { parseAddress } from '../../shared/policy/address.ts';
import { specialOf } from '../../shared/policy/special.ts';
import { namedPorts } from '../capture/ports.ts';
import { type GuestConfig, loadGuestConfig } from '../config/load.ts';
import { addressText, type ResolverAddress } from '../dns/upstream/address.ts';
import { formatLoopback } from '../proxy/loopback.ts';
import { askStatus } from '../status/socket.ts';
import { captureFinding, dnsServerFinding } from './ports.ts';
import { resolvConfFinding } from './resolv-conf.ts';
import { anchorFindings } from './trust.ts';

export interface ExamineOptions {
  readonly resolvConf?: string;
  readonly nowMs?: number;
}

/**
 * What the guest's configuration asks of this machine for names: ports, where the C library asks, trust anchors, the clock. Binds
 * ports of loopback for a moment; asks nobody but an agent that runs here.
 * @throws PosternError ERR_CONFIG_*
 */
export async function examineGuest(file: string, options: ExamineOptions = {}): Promise<Finding[]> {
  const { resolvConf = '/etc/resolv.conf', nowMs = Date.now() } = options;
  const config = await loadGuestConfig(file);
  const findings: Finding[] = [await clockFinding(file, nowMs)];
  if (config.dns !== undefined) {
    const { listen } = config.dns;
    const isCaptured = config.capture === 'names';
    if (await isRunning(config)) {
      const detail = `not tried: the agent that runs here has ${formatLoopback(listen)}`;
      findings.push({ what: 'DNS server', state: 'ok', detail });
    } else {
      findings.push(await dnsServerFinding(listen));
      if (isCaptured) findings.push(await captureFinding(namedPorts(config.policy)));
    }
    findings.push(await resolvConfFinding(resolvConf, listen, isCaptured));
  }
  findings.push(...config.resolvers.map(resolverFinding));
  if (config.resolvers.length > 0) findings.push(...anchorFindings(config, nowMs));
  return findings;
}

async function isRunning({ statusSocket }: GuestConfig): Promise<boolean> {
  try {
    await askStatus(statusSocket);
    return true;
  } catch (error) {
    if (!isPosternError(error)) throw error;
    return false;
  }
}

/** A day: clocks of a build machine and a guest may differ, and time zones be mistaken for each other. */
const CLOCK_SLACK_MS = 86_400_000;

/** A file cannot have been written after now: a clock that came up in the past shows in this way alone. */
async function clockFinding(file: string, nowMs: number): Promise<Finding> {
  const what = 'clock against the file';
  const { mtimeMs } = await stat(file);
  const written = new Date(mtimeMs).toISOString();
  if (mtimeMs <= nowMs + CLOCK_SLACK_MS) {
    return { what, state: 'ok', detail: `the configuration was written before now (${written})` };
  }
  const detail = `the configuration was written at ${written}, which is yet to come`;
  const advice = 'set the clock: certificates and DNSSEC signatures are judged by it';
  return { what, state: 'failed', detail, advice };
}

/** The policy does not ask about resolvers, since the owner chose them; the parent's guard does. */
function resolverFinding(server: ResolverAddress): Finding {
  const { protocol, port, address } = server;
  const what = `resolver ${addressText(server)}`;
  const over = protocol === 'udp' ? 'udp and tcp' : 'tcp';
  const how = { plain: 'DNS over TCP', udp: 'DNS over UDP', tls: 'TLS', https: 'HTTPS' }[protocol];
  const parsed = parseAddress(address);
  const special = parsed === undefined ? undefined : specialOf(parsed);
  const rule = `{ ip: "${address}", ports: ${port}, protocol: ${protocol === 'udp' ? '[udp, tcp]' : 'tcp'} }`;
  if (special === undefined) {
    return { what, state: 'ok', detail: `${how}; the parent's egress must let ${over} through to it` };
  }
  const detail = `${how}; a ${special.kind} address, which a parent dials only where its egress names it`;
  return {
    what,
    state: 'missing',
    detail,
    advice: `have the operator allow ${rule}, or name another resolver`,
  };
}
