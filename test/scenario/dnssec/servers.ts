import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { readMessage } from '../../../guest/dns/message.ts';
import { DomainName } from '../../../guest/dns/name.ts';
import { TYPE } from '../../../guest/dns/types.ts';
import { encodeQuery } from '../../../guest/dns/upstream/query.ts';
import { udpUpstream } from '../../../guest/dns/upstream/udp.ts';
import { SERVER_ADDRESSES, type ServerName, ZONES, type ZonePlan, zoneFile } from './zones.ts';

/** Where the recursing resolvers listen: two that carry our questions, and one that validates and is our oracle. */
export const RECURSOR = { address: '127.0.0.1', port: 5301 };
export const ORACLE = { address: '127.0.0.1', port: 5302 };
/** Knot Resolver, which validates too; asked with CD, as we ask, it passes on what does not validate. */
export const SECOND_RECURSOR = { address: '127.0.0.1', port: 5303 };
export const UPSTREAMS = { unbound: RECURSOR, 'Knot Resolver': SECOND_RECURSOR };
const START_TIMEOUT_MS = 20_000;

/** Starts authorities and resolvers, for a network namespace of their own; they end with it. */
export function startServers(folder: string, served: readonly ZonePlan[] = ZONES): ChildProcess[] {
  return [...startAuthorities(folder, served), ...startResolvers(folder)];
}

/** They read their zones again at a SIGHUP. */
export function startAuthorities(folder: string, served: readonly ZonePlan[]): ChildProcess[] {
  const zones = (server: ServerName): ZonePlan[] => served.filter((zone) => zone.server === server);
  return [
    startNamed(folder, zones('named')),
    startNsd(folder, zones('nsd')),
    startKnot(folder, zones('knot')),
  ];
}

export function startResolvers(folder: string): ChildProcess[] {
  return [
    startUnbound(folder, 'recursor', RECURSOR.port, 'iterator'),
    startUnbound(folder, 'oracle', ORACLE.port, 'validator iterator'),
    startKresd(folder),
  ];
}

/** Until every zone that is not broken can be asked for through every resolver. */
export async function waitForServers(): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  const sound = ZONES.filter(({ fault }) => fault === undefined);
  for (const [zone, upstream] of sound.flatMap((one) =>
    Object.values(UPSTREAMS).map((at) => [one, at] as const),
  )) {
    for (;;) {
      const query = encodeQuery(DomainName.parse(zone.name), TYPE.SOA);
      const answer = await udpUpstream(upstream)
        .exchange(query, { signal: AbortSignal.timeout(1_000) })
        .then(readMessage, () => undefined);
      if (answer?.rcode === 0 && answer.answer.length > 0) break;
      if (performance.now() > deadline) throw new Error(`${zone.name} is not served: rcode ${answer?.rcode}`);
      await sleep(200);
    }
  }
}

function start(program: string, ...args: string[]): ChildProcess {
  return spawn(program, args, { stdio: ['ignore', 'ignore', 'ignore'] });
}

function startNamed(folder: string, zones: readonly ZonePlan[]): ChildProcess {
  const file = join(folder, 'named.conf');
  const listed = zones.map(
    (zone) => `zone "${zone.name}" { type primary; file "${zoneFile(folder, zone)}"; };`,
  );
  const options = [
    `directory "${folder}"; pid-file none; session-keyfile none; recursion no; dnssec-validation no;`,
    `listen-on { ${SERVER_ADDRESSES.named}; }; listen-on-v6 { none; }; check-names primary ignore;`,
  ];
  writeFileSync(file, `options { ${options.join('\n')} };\ncontrols { };\n${listed.join('\n')}\n`);
  return start('named', '-g', '-c', file);
}

function startNsd(folder: string, zones: readonly ZonePlan[]): ChildProcess {
  const file = join(folder, 'nsd.conf');
  const server = [
    'server:',
    `ip-address: ${SERVER_ADDRESSES.nsd}`,
    'username: ""',
    'database: ""',
    `zonesdir: "${folder}"`,
  ];
  const paths = [
    `pidfile: "${folder}/nsd.pid"`,
    `xfrdfile: "${folder}/xfrd.state"`,
    `zonelistfile: "${folder}/zone.list"`,
    `xfrdir: "${folder}"`,
  ];
  const listed = zones.map((zone) => `zone:\n name: "${zone.name}"\n zonefile: "${zoneFile(folder, zone)}"`);
  writeFileSync(
    file,
    `${[...server, ...paths].join('\n ')}\nremote-control:\n control-enable: no\n${listed.join('\n')}\n`,
  );
  return start('nsd', '-d', '-c', file);
}

function startKnot(folder: string, zones: readonly ZonePlan[]): ChildProcess {
  const file = join(folder, 'knot.conf');
  const storage = join(folder, 'knot');
  mkdirSync(storage);
  const listed = zones.map((zone) => ` - domain: ${zone.name}\n   file: "${zoneFile(folder, zone)}"`);
  const server = `server:\n  rundir: "${storage}"\n  listen: ${SERVER_ADDRESSES.knot}@53\n`;
  writeFileSync(file, `${server}database:\n  storage: "${storage}"\nzone:\n${listed.join('\n')}\n`);
  return start('knotd', '-c', file);
}

function startUnbound(folder: string, name: string, port: number, modules: string): ChildProcess {
  const hints = join(folder, 'root.hints');
  writeFileSync(hints, `. 3600000 NS ns.\nns. 3600000 A ${SERVER_ADDRESSES.named}\n`);
  const file = join(folder, `${name}.conf`);
  const options = [
    `interface: 127.0.0.1@${port}`,
    'do-daemonize: no',
    'username: ""',
    'chroot: ""',
    `pidfile: ""`,
    'use-syslog: no',
    `directory: "${folder}"`,
    `root-hints: "${hints}"`,
    `module-config: "${modules}"`,
    'do-not-query-localhost: no',
    'aggressive-nsec: no',
    'qname-minimisation: no',
    'access-control: 127.0.0.0/8 allow',
    'do-ip6: no',
    'local-zone: "test." nodefault',
    ...(modules.startsWith('validator') ? [`trust-anchor-file: "${folder}/root.anchor"`] : []),
  ];
  writeFileSync(file, `server:\n ${options.join('\n ')}\nremote-control:\n control-enable: no\n`);
  return start('unbound', '-d', '-c', file);
}

function startKresd(folder: string): ChildProcess {
  const directory = join(folder, 'kresd');
  mkdirSync(directory);
  const file = join(directory, 'kresd.conf');
  const lines = [
    `net.listen('${SECOND_RECURSOR.address}', ${SECOND_RECURSOR.port}, { kind = 'dns' })`,
    'net.ipv6 = false',
    `cache.open(20 * MB, 'lmdb://${directory}/cache')`,
    // Like unbound, it keeps nothing longer than its TTL says.
    'cache.min_ttl(0)',
    "modules = { 'hints > iterate' }",
    `hints.root({ ['ns.'] = '${SERVER_ADDRESSES.named}' })`,
    "trust_anchors.remove('.')",
    `trust_anchors.add_file('${folder}/root.anchor', true)`,
    // Servers on loopback, and a test. that exists (RFC 6761 section 6.2 has resolvers deny it).
    "option('ALLOW_LOCAL', true)",
    "option('NO_MINIMIZE', true)",
    'policy.special_names = {}',
  ];
  writeFileSync(file, `${lines.join('\n')}\n`);
  return start('kresd', '-n', '-c', file, directory);
}
