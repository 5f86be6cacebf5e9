import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { Namespace } from './namespace.ts';

/** How this machine can show the volume: as a device of its kernel, over FUSE and a loop device, or by NBD requests alone. */
export type Way =
  | { readonly kind: 'kernel'; readonly device: string }
  | { readonly kind: 'loop' }
  | { readonly kind: 'raw'; readonly why: string };

/** A root that a user namespace made up may not attach block devices. */
const WHOLE_UID_MAP = /^\s*0\s+0\s+4294967295\s*$/;

export function findWay(): Way {
  const why = whyNoFileSystem();
  if (why !== undefined) return { kind: 'raw', why };
  const device = freeDevice();
  if (device !== undefined) return { kind: 'kernel', device };
  const missing = whyNoLoop();
  return missing === undefined ? { kind: 'loop' } : { kind: 'raw', why: missing };
}

/** For a person, above what is shown of the disk. */
export function describeWay(way: Way): string {
  switch (way.kind) {
    case 'kernel':
      return `A disk: ext4 on ${way.device}, which the agent makes of the volume:`;
    case 'loop':
      return [
        'A disk: ext4 on a loop device over nbdfuse, since this kernel has no nbd;',
        'where it has, as in a guest, the agent makes /dev/nbd0 of the volume:',
      ].join(' ');
    case 'raw':
      return [
        `A disk, by NBD requests alone: nothing is formatted or mounted here, since ${way.why};`,
        'in a guest the agent makes /dev/nbd0 of the volume, to be formatted and mounted:',
      ].join(' ');
  }
}

function whyNoFileSystem(): string | undefined {
  if (process.getuid?.() !== 0) return 'you are not root';
  if (!WHOLE_UID_MAP.test(readFileSync('/proc/self/uid_map', 'utf8'))) {
    return 'you are root in a user namespace only';
  }
  for (const program of ['mkfs.ext4', 'unshare', 'nsenter', 'setpriv', 'prlimit', 'mount', 'umount']) {
    if (!isInstalled(program)) return `${program} is not installed (apt-get install e2fsprogs util-linux)`;
  }
  if (!Namespace.isPermitted('mount')) return 'this kernel or container permits no mount namespaces';
  return undefined;
}

/** A device that nobody has connected: it then has no `pid`. */
function freeDevice(): string | undefined {
  if (!existsSync('/sys/module/nbd')) return undefined;
  const name = readdirSync('/sys/block').find(
    (block) =>
      /^nbd\d+$/.test(block) && !existsSync(`/sys/block/${block}/pid`) && existsSync(`/dev/${block}`),
  );
  return name === undefined ? undefined : `/dev/${name}`;
}

function whyNoLoop(): string | undefined {
  const noNbd = 'this kernel has no nbd (modprobe nbd)';
  if (!isInstalled('nbdfuse')) return `${noNbd}, and nbdfuse is not installed (apt-get install libnbd-bin)`;
  const device = ['/dev/fuse', '/dev/loop-control'].find((path) => !existsSync(path));
  return device === undefined ? undefined : `${noNbd}, and there is no ${device}`;
}

function isInstalled(program: string): boolean {
  return spawnSync(program, [program === 'mkfs.ext4' ? '-V' : '--version']).error === undefined;
}
