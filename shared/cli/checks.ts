import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { isPosternError } from '../errors.ts';
import { streamPair } from '../transport/pair.ts';

export const ROLES = ['parent', 'guest'] as const;
export type Role = (typeof ROLES)[number];

/** One thing that was looked at. `missing`: a part of Postern does without it; `failed`: it does not run so. */
export interface Finding {
  readonly what: string;
  readonly state: 'ok' | 'missing' | 'failed';
  readonly detail: string;
  readonly advice?: string;
}

interface Check {
  readonly what: string;
  readonly roles: readonly Role[];
  look(): Omit<Finding, 'what'>;
}

const NODE_MAJOR_MIN = 24;
/** A flow takes two descriptors; with fewer than this a busy guest is cut off long before its quota. */
const DESCRIPTORS_WANTED = 10_000;
/** The day this was written: no clock is right that says less. */
const CLOCK_FLOOR_MS = Date.UTC(2026, 10, 1);
/** Nor, before that long is over, one that says more: times of DNSSEC signatures are good for 68 years around now. */
const CLOCK_CEILING_MS = Date.UTC(2066, 0, 1);

const CHECKS: readonly Check[] = [
  { what: 'Node', roles: ROLES, look: checkNode },
  { what: 'clock', roles: ['guest'], look: () => checkClock(Date.now()) },
  { what: 'sockets through libc', roles: ROLES, look: checkNative },
  { what: 'AF_VSOCK', roles: ROLES, look: checkVsock },
  { what: 'open files', roles: ROLES, look: checkDescriptors },
  { what: 'user', roles: ROLES, look: checkUser },
  {
    what: 'block devices (nbd)',
    roles: ['guest'],
    look: () =>
      device('/sys/module/nbd', 'volumes as /dev/nbdN', 'modprobe nbd, or use the NBD server’s unix socket'),
  },
  {
    what: 'TUN',
    roles: ['guest'],
    look: () => device('/dev/net/tun', 'the tun capture mode', 'modprobe tun; the proxies work without it'),
  },
  {
    what: 'nftables',
    roles: ['guest'],
    look: () => program('nft', ['--version'], 'the redirect capture mode', 'apt-get install nftables'),
  },
  { what: 'network namespaces', roles: ['guest'], look: checkNamespaces },
];

/** Looks at everything of that role, or of all; opens nothing towards another machine. */
export function examine(role: Role | undefined): Finding[] {
  const wanted = CHECKS.filter(({ roles }) => role === undefined || roles.includes(role));
  return wanted.map(({ what, look }) => ({ what, ...look() }));
}

function checkNode(): Omit<Finding, 'what'> {
  const major = Number(process.versions.node.split('.')[0]);
  if (major >= NODE_MAJOR_MIN) return { state: 'ok', detail: process.version };
  const advice = `use Node ${NODE_MAJOR_MIN} or newer; npm ci brings one that npm run finds by itself`;
  return { state: 'failed', detail: process.version, advice };
}

export function checkClock(nowMs: number): Omit<Finding, 'what'> {
  const detail = new Date(nowMs).toISOString();
  if (nowMs > CLOCK_FLOOR_MS && nowMs < CLOCK_CEILING_MS) return { state: 'ok', detail };
  return {
    state: 'failed',
    detail,
    advice: 'set the clock: certificates and DNSSEC signatures are judged by it',
  };
}

function checkNative(): Omit<Finding, 'what'> {
  try {
    for (const stream of streamPair()) stream.destroy();
    return { state: 'ok', detail: 'koffi calls libc, Node adopts its sockets' };
  } catch (error) {
    if (!isPosternError(error)) throw error;
    return { state: 'failed', detail: error.message, advice: 'use the Node that package.json pins' };
  }
}

function checkVsock(): Omit<Finding, 'what'> {
  if (existsSync('/dev/vsock')) return { state: 'ok', detail: '/dev/vsock is there' };
  const advice =
    'on a parent: modprobe vhost_vsock; in a guest: its kernel needs the vsock transport; or use hybrid:, unix:';
  return { state: 'missing', detail: 'no /dev/vsock', advice };
}

function checkDescriptors(): Omit<Finding, 'what'> {
  const limits = readFileSync('/proc/self/limits', 'utf8');
  const hard = Number(/^Max open files +\S+ +(\d+)/m.exec(limits)?.[1] ?? 0);
  if (hard >= DESCRIPTORS_WANTED)
    return { state: 'ok', detail: `${hard}, enough for ${Math.floor(hard / 2)} flows` };
  const advice = `raise it: LimitNOFILE= of the service, or ulimit -Hn ${DESCRIPTORS_WANTED}`;
  return { state: 'missing', detail: `${hard}, enough for ${Math.floor(hard / 2)} flows`, advice };
}

function checkUser(): Omit<Finding, 'what'> {
  if (process.getuid?.() === 0) return { state: 'ok', detail: 'root' };
  const advice = 'as another user: no ports below 1024, no workload user of its own, no block devices';
  return { state: 'missing', detail: `uid ${process.getuid?.()}`, advice };
}

function checkNamespaces(): Omit<Finding, 'what'> {
  if (spawnSync('unshare', ['--net', 'true']).status === 0)
    return { state: 'ok', detail: 'permitted (for the demo)' };
  return {
    state: 'missing',
    detail: 'not permitted',
    advice: 'the demo falls back to loopback; a guest needs none',
  };
}

function device(path: string, purpose: string, advice: string): Omit<Finding, 'what'> {
  if (existsSync(path)) return { state: 'ok', detail: `${path} is there` };
  return { state: 'missing', detail: `no ${path}, which ${purpose} needs`, advice };
}

function program(
  name: string,
  words: readonly string[],
  purpose: string,
  advice: string,
): Omit<Finding, 'what'> {
  const { error, stdout } = spawnSync(name, words, { encoding: 'utf8' });
  if (error === undefined) return { state: 'ok', detail: stdout.trim() };
  return { state: 'missing', detail: `no ${name}, which ${purpose} needs`, advice };
}
