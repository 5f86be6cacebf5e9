import type { Problem } from '../../shared/errors.ts';
import { egressConflicts } from '../../shared/policy/conflicts.ts';
import { formatTransportAddress, type TransportAddress } from '../../shared/transport/address.ts';
import { findObjectConflicts } from '../objects/config.ts';
import { formatTcpAddress, type TcpAddress } from '../tcp/address.ts';
import type { ParentConfig } from './config.ts';

/** What no single entry can tell: entries that need or exclude each other. Both paths are named. */
export function findConflicts(config: ParentConfig): readonly Problem[] {
  const guests = Object.entries(config.guests);
  return [
    ...guests.flatMap(([name, guest]) => incomplete(`guests.${name}`, guest, config.listen !== undefined)),
    ...guests.flatMap(([name, { egress }]) =>
      egressConflicts(egress).map((one) => within(`guests.${name}`, one)),
    ),
    ...listenerKind(config),
    ...duplicates(guests.map(([name, { cid }]) => ({ path: `guests.${name}.cid`, key: cid }))),
    ...duplicates(socketPaths(config)),
    ...overlaps(config),
    ...findObjectConflicts(config),
  ];
}

/** A problem of a guest's rules, with the whole path wherever it names one. */
function within(path: string, problem: Problem): Problem {
  const place = (text: string): string => text.replaceAll(/\begress\.(allow|deny)\b/g, `${path}.$&`);
  return {
    path: place(problem.path),
    found: place(problem.found),
    expected: place(problem.expected),
  };
}

function incomplete(path: string, guest: ParentConfig['guests'][string], hasListen: boolean): Problem[] {
  const problems: Problem[] = [];
  if ((guest.cid === undefined) === (guest.listen === undefined)) {
    const found = guest.cid === undefined ? 'neither' : 'both';
    problems.push({ path, found, expected: 'exactly one of cid and listen, to know the guest by' });
  }
  if (guest.cid !== undefined && !hasListen) {
    problems.push({
      path: 'listen',
      found: 'nothing',
      expected: `an address for ${path}.cid, as vsock:ANY:5000`,
    });
  }
  if (guest.listen?.kind === 'vsock') {
    const expected = 'unix:PATH or hybrid:PATH:PORT; a vsock guest is known by its cid';
    problems.push({ path: `${path}.listen`, found: formatTransportAddress(guest.listen), expected });
  }
  if (guest.forwards.length > 0 && guest.agent === undefined) {
    const expected = `where the agent takes inbound streams, for ${path}.forwards`;
    problems.push({ path: `${path}.agent`, found: 'nothing', expected });
  }
  if (guest.cid !== undefined && guest.agent?.kind === 'vsock' && guest.agent.cid !== guest.cid) {
    const expected = `CID ${guest.cid}, as ${path}.cid says`;
    problems.push({ path: `${path}.agent`, found: `CID ${guest.agent.cid}`, expected });
  }
  return problems;
}

function listenerKind(config: ParentConfig): Problem[] {
  if (config.listen === undefined || config.listen.kind === 'vsock') return [];
  const found = formatTransportAddress(config.listen);
  return [{ path: 'listen', found, expected: 'vsock:CID:PORT; give a unix or hybrid guest its own listen' }];
}

interface Keyed {
  readonly path: string;
  readonly key: string | number | undefined;
}

function duplicates(entries: readonly Keyed[]): Problem[] {
  const first = new Map<string | number, string>();
  const problems: Problem[] = [];
  for (const { path, key } of entries) {
    if (key === undefined) continue;
    const other = first.get(key);
    if (other === undefined) first.set(key, path);
    else problems.push({ path, found: String(key), expected: `another value than ${other} has` });
  }
  return problems;
}

/** The file that an address binds or connects to; a hybrid listener binds PATH_PORT. */
function socketPaths(config: ParentConfig): Keyed[] {
  return Object.entries(config.guests).flatMap(([name, guest]) => [
    { path: `guests.${name}.listen`, key: boundPath(guest.listen) },
    { path: `guests.${name}.agent`, key: agentKey(guest.agent) },
  ]);
}

function boundPath(address: TransportAddress | undefined): string | undefined {
  if (address?.kind === 'unix') return address.path;
  return address?.kind === 'hybrid' ? `${address.path}_${address.port}` : undefined;
}

function agentKey(address: TransportAddress | undefined): string | undefined {
  if (address?.kind === 'unix') return address.path;
  return address?.kind === 'hybrid' ? formatTransportAddress(address) : undefined;
}

interface Bound {
  readonly path: string;
  readonly address: TcpAddress;
}

/** Two TCP listeners of one port exclude each other if they have one address or one of them has every address. */
function overlaps(config: ParentConfig): Problem[] {
  const byPort = new Map<number, Bound[]>();
  const problems: Problem[] = [];
  for (const bound of tcpListeners(config)) {
    const others = byPort.get(bound.address.port) ?? [];
    const other =
      bound.address.port === 0 ? undefined : others.find((one) => collide(one.address, bound.address));
    byPort.set(bound.address.port, [...others, bound]);
    if (other === undefined) continue;
    const expected = `an address that ${other.path} (${formatTcpAddress(other.address)}) does not take`;
    problems.push({ path: bound.path, found: formatTcpAddress(bound.address), expected });
  }
  return problems;
}

function tcpListeners(config: ParentConfig): Bound[] {
  const admin = config.admin === 'off' ? [] : [{ path: 'admin', address: config.admin }];
  const forwards = Object.entries(config.guests).flatMap(([name, guest]) =>
    guest.forwards.map((one, index) => ({
      path: `guests.${name}.forwards[${index}].listen`,
      address: one.listen,
    })),
  );
  return [...admin, ...forwards];
}

function collide(left: TcpAddress, right: TcpAddress): boolean {
  if (left.host === right.host) return true;
  const sameFamily = left.host.includes(':') === right.host.includes(':');
  return sameFamily && [left.host, right.host].some((host) => host === '0.0.0.0' || host === '::');
}
