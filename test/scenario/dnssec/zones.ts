import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** One zone of the hierarchy, and how it is signed. */
export interface ZonePlan {
  /** With its last dot. */
  readonly name: string;
  readonly server: ServerName;
  /** Undefined for an unsigned zone. */
  readonly algorithm?: string;
  readonly denial?: 'nsec' | 'nsec3' | 'opt-out';
  readonly iterations?: number;
  /** What is wrong with it. */
  readonly fault?: 'expired' | 'wrong-ds';
  /** Another DS than one of SHA-256. */
  readonly ds?: 'sha1' | 'unknown-algorithm';
  readonly records?: readonly string[];
}

export type ServerName = 'named' | 'nsd' | 'knot';
export const SERVER_ADDRESSES: Record<ServerName, string> = {
  named: '127.0.0.2',
  nsd: '127.0.0.3',
  knot: '127.0.0.4',
};

/** In every leaf zone: data, aliases within and across, wildcards of data and aliases, a DNAME, an empty non-terminal. */
function leafRecords(next: string): string[] {
  return [
    'www A 192.0.2.1',
    'www A 192.0.2.2',
    'www AAAA 2001:db8::1',
    'mail MX 10 www',
    'text TXT "some text" "and more"',
    'service HTTPS 1 . alpn=h2',
    'here CNAME www',
    `there CNAME www.${next}`,
    `far CNAME there.${next}`,
    `gone CNAME none.${next}`,
    '*.wild A 192.0.2.3',
    '*.wild TXT "wild"',
    'known.wild A 192.0.2.4',
    `*.wildalias CNAME www.${next}`,
    `moved DNAME ${next}`,
    'deep.empty A 192.0.2.5',
    'UPPER.Case A 192.0.2.6',
    '_443._tcp.www TLSA 3 1 1 0102',
  ];
}

const LEAVES: ZonePlan[] = [
  { name: 'a08.test.', server: 'named', algorithm: 'RSASHA256', denial: 'nsec' },
  { name: 'a10.test.', server: 'nsd', algorithm: 'RSASHA512', denial: 'nsec3' },
  { name: 'a13.test.', server: 'knot', algorithm: 'ECDSAP256SHA256', denial: 'nsec' },
  { name: 'a14.test.', server: 'named', algorithm: 'ECDSAP384SHA384', denial: 'nsec3', iterations: 10 },
  { name: 'a15.test.', server: 'nsd', algorithm: 'ED25519', denial: 'nsec3' },
  { name: 'a16.test.', server: 'knot', algorithm: 'ED448', denial: 'nsec' },
  { name: 'plain.test.', server: 'named' },
  { name: 'out.test.', server: 'knot', algorithm: 'ECDSAP256SHA256', denial: 'opt-out' },
  { name: 'plain.out.test.', server: 'named' },
  { name: 'u.ent.out.test.', server: 'knot' },
  { name: 's.out.test.', server: 'nsd', algorithm: 'ED25519', denial: 'nsec' },
  { name: 'plain.a13.test.', server: 'nsd' },
  { name: 's.a14.test.', server: 'knot', algorithm: 'ECDSAP256SHA256', denial: 'nsec3' },
  { name: 's.plain.test.', server: 'named', algorithm: 'ECDSAP256SHA256', denial: 'nsec' },
  { name: 'iter.test.', server: 'nsd', algorithm: 'ECDSAP256SHA256', denial: 'nsec3', iterations: 200 },
  { name: 'sha1.test.', server: 'knot', algorithm: 'ECDSAP256SHA256', denial: 'nsec', ds: 'sha1' },
  { name: 'unknown.test.', server: 'named', algorithm: 'ED25519', denial: 'nsec', ds: 'unknown-algorithm' },
  { name: 'expired.test.', server: 'named', algorithm: 'ECDSAP256SHA256', denial: 'nsec', fault: 'expired' },
  { name: 'wrongds.test.', server: 'nsd', algorithm: 'ECDSAP256SHA256', denial: 'nsec3', fault: 'wrong-ds' },
];

export const ZONES: readonly ZonePlan[] = [
  { name: '.', server: 'named', algorithm: 'RSASHA256', denial: 'nsec' },
  { name: 'test.', server: 'knot', algorithm: 'ECDSAP256SHA256', denial: 'opt-out' },
  ...LEAVES.map((plan, index) => ({
    ...plan,
    records: leafRecords(LEAVES[(index + 1) % LEAVES.length]?.name ?? ''),
  })),
];

/** Writes and signs every zone, children first, and the anchor of the root. */
export function buildZones(folder: string): void {
  const built = new Map<string, string>();
  for (const plan of [...ZONES].sort((a, b) => b.name.split('.').length - a.name.split('.').length)) {
    if (plan.name !== '.') built.set(plan.name, buildZone(folder, plan, delegations(folder, plan, built)));
  }
  const root = ZONES[0];
  if (root !== undefined)
    writeFileSync(join(folder, 'root.anchor'), buildZone(folder, root, delegations(folder, root, built)));
}

export function zoneFile(folder: string, { name, algorithm }: ZonePlan): string {
  return join(folder, `zone${name}${algorithm === undefined ? 'plain' : 'signed'}`);
}

/** NS, glue and DS of the zones right below. */
function delegations(_folder: string, plan: ZonePlan, built: ReadonlyMap<string, string>): string[] {
  return ZONES.filter((zone) => zone.name !== plan.name && parentOf(zone.name) === plan.name).flatMap(
    (zone) => [
      `${zone.name} NS ns.${zone.name}`,
      `ns.${zone.name} A ${SERVER_ADDRESSES[zone.server]}`,
      built.get(zone.name) ?? '',
    ],
  );
}

function parentOf(name: string): string {
  const above = ZONES.map((zone) => zone.name).filter(
    (zone) => zone !== name && (zone === '.' || name.endsWith(`.${zone}`)),
  );
  return above.sort((a, b) => b.length - a.length)[0] ?? '.';
}

/** BIND signs with no more (RFC 9276); ldns does. */
const BIND_ITERATIONS_MAX = 150;

/** The DS records for the parent (the anchor, for the root); empty for an unsigned zone. */
function buildZone(folder: string, plan: ZonePlan, below: readonly string[]): string {
  const host = plan.name === '.' ? 'ns.' : `ns.${plan.name}`;
  const lines = [
    `$ORIGIN ${plan.name}`,
    '$TTL 300',
    `@ SOA ${host} admin.${plan.name === '.' ? '' : plan.name} 1 3600 900 604800 60`,
    `@ NS ${host}`,
    `${host} A ${SERVER_ADDRESSES[plan.server]}`,
    ...(plan.records ?? []),
    ...below,
  ];
  const plain = join(folder, `zone${plan.name}plain`);
  writeFileSync(plain, `${lines.join('\n')}\n`);
  return plan.algorithm === undefined ? '' : signZone(folder, plan, plain);
}

function signZone(folder: string, plan: ZonePlan, plain: string): string {
  const run = (program: string, ...args: string[]): string =>
    execFileSync(program, args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const keyArgs = [
    '-a',
    plan.algorithm ?? '',
    ...(plan.algorithm?.startsWith('RSA') === true ? ['-b', '2048'] : []),
  ];
  const keys = [
    run('dnssec-keygen', ...keyArgs, '-f', 'KSK', plan.name),
    run('dnssec-keygen', ...keyArgs, plan.name),
  ];
  const denial =
    plan.denial === 'nsec'
      ? []
      : ['-3', '-', '-H', String(plan.iterations ?? 0), ...(plan.denial === 'opt-out' ? ['-A'] : [])];
  const period =
    plan.fault === 'expired'
      ? ['-s', '20200101000000', '-e', '20200201000000']
      : ['-s', '-3600', '-e', '+864000'];
  const output = zoneFile(folder, plan);
  if ((plan.iterations ?? 0) > BIND_ITERATIONS_MAX) {
    const files = keys.map((key) => key.trim());
    run('ldns-signzone', '-n', '-t', String(plan.iterations), '-o', plan.name, '-f', output, plain, ...files);
  } else {
    run('dnssec-signzone', '-S', '-P', ...denial, ...period, '-o', plan.name, '-f', output, plain);
  }
  const [ksk = ''] = keys;
  const ds = run('dnssec-dsfromkey', plan.ds === 'sha1' ? '-1' : '-2', ksk.trim()).trim();
  if (plan.ds === 'unknown-algorithm') return ds.replace(/ 15 2 /, ' 99 2 ');
  return plan.fault === 'wrong-ds' ? ds.replace(/[0-9A-F]{4}$/, 'ABCD') : ds;
}

/** For messages when something does not start. */
export function listFolder(folder: string): string {
  return readdirSync(folder)
    .map((file) => `${file} ${readFileSync(join(folder, file)).length}`)
    .join('\n');
}
