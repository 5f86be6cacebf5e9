import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { stringify } from 'yaml';
import { selfSignedCertificate } from './certificate.ts';
import type { Stage } from './stage.ts';

export const SERVE_PORT = 18080;
const PROXY_PORT = 43128;
/** Nobody, on every Debian. */
const NOBODY = 65534;

export interface DemoFiles {
  readonly folder: string;
  readonly parent: string;
  readonly guest: string;
  /** Of the agent that shows the disk: the volume and nothing else. */
  readonly disk: string;
  readonly certificate: string;
  readonly privateKey: string;
  /** Whether the workload runs as a user of its own, as it should. */
  readonly workloadApart: boolean;
  /** Where the guest serves its volume, and where the parent keeps what that is made of. */
  readonly nbdSocket: string;
  readonly objects: string;
  /** A folder to mount things in. */
  readonly mounts: string;
}

/** Everything the demo writes, in one folder of its own: configurations, a policy and a certificate. `device` is for the volume. */
export function writeFiles(stage: Stage, device: string | undefined): DemoFiles {
  const folder = mkdtempSync(join(tmpdir(), 'postern-demo-'));
  // The workload reads the certificate; the session key and the sockets stand in a closed folder.
  chmodSync(folder, 0o755);
  const inFolder = (name: string): string => join(folder, name);
  const closed = inFolder('closed');
  mkdirSync(closed, { mode: 0o700 });
  const { certificate, privateKey } = selfSignedCertificate('api.example.com');
  writeFileSync(inFolder('world.crt'), certificate);
  writeFileSync(inFolder('world.key'), privateKey, { mode: 0o600 });
  const workloadApart =
    process.getuid?.() === 0 && everybodyMayRun(process.execPath) && everybodyMayRun(import.meta.filename);
  const files = {
    folder,
    parent: inFolder('parent.yaml'),
    guest: inFolder('guest.yaml'),
    disk: inFolder('disk.yaml'),
    certificate: inFolder('world.crt'),
    privateKey: inFolder('world.key'),
    workloadApart,
    nbdSocket: join(closed, 'data.nbd'),
    objects: join(closed, 'objects'),
    mounts: join(closed, 'mounts'),
  };
  for (const path of [files.objects, files.mounts]) mkdirSync(path);
  writeFileSync(join(closed, 'data.key'), randomBytes(32), { mode: 0o600 });
  writeFileSync(files.parent, stringify(parentConfig(stage, closed)));
  writeFileSync(files.guest, stringify(guestConfig(stage, closed, files)));
  writeFileSync(files.disk, stringify(diskConfig(closed, device)));
  return files;
}

function parentConfig(stage: Stage, closed: string): object {
  return {
    version: 1,
    state: join(closed, 'state'),
    admin: 'off',
    log: { format: 'json' },
    drainTimeoutMs: 1000,
    stores: { disk: { directory: { path: join(closed, 'objects') } } },
    guests: {
      demo: {
        listen: `unix:${join(closed, 'parent.sock')}`,
        agent: `unix:${join(closed, 'agent.sock')}`,
        egress: { allow: [{ ip: stage.worldAddress, ports: [stage.webPort, stage.dnsPort] }] },
        forwards: [{ listen: stage.forwardAddress, to: 8080 }],
        objects: [{ store: 'disk', prefix: 'demo/' }],
      },
    },
  };
}

function guestConfig(
  stage: Stage,
  closed: string,
  files: Pick<DemoFiles, 'certificate' | 'workloadApart'>,
): object {
  const allow: object[] = [{ name: 'the one api', fqdn: 'api.example.com', ports: stage.webPort }];
  // A name that leads to loopback is refused, unless the address has a rule as well.
  if (stage.worldAddress === '127.0.0.1')
    allow.push({ name: 'world', ip: '127.0.0.1', ports: stage.webPort });
  return {
    version: 1,
    parent: `unix:${join(closed, 'parent.sock')}`,
    listen: `unix:${join(closed, 'agent.sock')}`,
    sessionKey: join(closed, 'session.key'),
    proxies: { http: `127.0.0.1:${PROXY_PORT}` },
    resolvers: [`${stage.worldAddress}${stage.dnsPort === 53 ? '' : `:${stage.dnsPort}`}`],
    // The demo's internet is not signed: these zones are taken as that, so their names are marked insecure.
    negativeTrustAnchors: ['example.com', 'example.net'],
    // The audit trail shows allowed flows as well, which are told at this level.
    log: { format: 'json', level: 'debug' },
    policy: {
      version: 1,
      egress: { allow },
      ingress: [{ port: 8080, to: `127.0.0.1:${SERVE_PORT}` }],
    },
    volumes: volumesConfig(closed),
    workload: {
      ...(files.workloadApart ? { user: NOBODY, group: NOBODY } : {}),
      environment: { NODE_USE_ENV_PROXY: '1', NODE_EXTRA_CA_CERTS: files.certificate },
    },
  };
}

function diskConfig(closed: string, device: string | undefined): object {
  return {
    version: 1,
    parent: `unix:${join(closed, 'parent.sock')}`,
    sessionKey: join(closed, 'session.key'),
    log: { format: 'json' },
    policy: { version: 1, egress: { allow: [] } },
    volumes: volumesConfig(closed, device),
  };
}

function volumesConfig(closed: string, device?: string): object {
  return {
    data: {
      prefix: 'demo/data',
      key: { file: join(closed, 'data.key') },
      anchor: { file: join(closed, 'anchor') },
      nbd: { socket: join(closed, 'data.nbd'), ...(device === undefined ? {} : { device }) },
      // The demo kills the guest, which then comes back without asking.
      takeover: true,
    },
  };
}

/** Whether a user of no group can reach the file: every folder on the way lets everybody through. */
function everybodyMayRun(file: string): boolean {
  if ((statSync(file).mode & 0o005) !== 0o005 && !file.endsWith('.ts') && !file.endsWith('.js')) return false;
  for (let folder = dirname(file); ; folder = dirname(folder)) {
    if ((statSync(folder).mode & 0o001) === 0) return false;
    if (folder === dirname(folder)) return true;
  }
}
