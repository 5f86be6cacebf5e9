import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { tryLock } from '../../shared/transport/native/libc.ts';

/** The root of the repository, which the VM sees at the same path. */
export const REPOSITORY = join(import.meta.dirname, '../..');
const CACHE = join(REPOSITORY, '.cache/vm');
/** Debian's name for the kernel that it currently ships. */
const META_PACKAGE = 'linux-image-amd64';

export interface Kernel {
  readonly image: string;
  /** `lib/modules` with one folder in it, the kernel's version, and its `modules.dep`. */
  readonly modulesFolder: string;
  readonly version: string;
}

/** Between two looks whether another test has finished the download. */
const LOCK_RETRY_MS = 250;

/** Debian's stock kernel, unpacked under `.cache/vm` and kept; nothing is installed on this machine. */
export function fetchKernel(): Kernel {
  const folder = join(CACHE, cachedKernel() ?? unpackKernel());
  const modulesFolder = join(folder, 'lib/modules');
  const version = readdirSync(modulesFolder)[0] ?? '';
  return { image: join(folder, `boot/vmlinuz-${version}`), modulesFolder, version };
}

function cachedKernel(): string | undefined {
  const names = existsSync(CACHE) ? readdirSync(CACHE) : [];
  return names
    .filter((name) => name.startsWith('linux-image-'))
    .sort()
    .at(-1);
}

/** One test downloads, the others wait for it. What is unpacked is renamed when it is whole: a stop leaves no half. */
function unpackKernel(): string {
  mkdirSync(CACHE, { recursive: true });
  const lock = openSync(CACHE, 'r');
  const work = mkdtempSync(join(CACHE, 'unpacking-'));
  try {
    while (!tryLock(lock)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOCK_RETRY_MS);
    const cached = cachedKernel();
    if (cached !== undefined) return cached;
    const folder = downloadKernel(work);
    renameSync(join(work, 'root'), join(CACHE, folder));
    return folder;
  } finally {
    rmSync(work, { recursive: true, force: true });
    closeSync(lock);
  }
}

/** Leaves `work/root`; the name of the package with its version. */
function downloadKernel(work: string): string {
  const name = currentPackage();
  execFileSync('apt-get', ['-qq', '-o', 'Acquire::Retries=3', 'download', name], {
    cwd: work,
    stdio: 'pipe',
  });
  const archive = readdirSync(work).find((file) => file.endsWith('.deb')) ?? '';
  execFileSync('dpkg', ['-x', archive, 'root'], { cwd: work });
  const version = readdirSync(join(work, 'root/lib/modules'))[0] ?? '';
  execFileSync('/sbin/depmod', ['-b', join(work, 'root'), version]);
  return basename(archive, '.deb');
}

/** The package that `linux-image-amd64` depends on; package lists that are missing are fetched first. */
function currentPackage(): string {
  const found = dependency();
  if (found !== undefined) return found;
  execFileSync('apt-get', ['-qq', 'update'], { stdio: 'pipe' });
  const now = dependency();
  if (now === undefined)
    throw new Error(`apt knows no ${META_PACKAGE}; the VM tests need Debian's repositories`);
  return now;
}

function dependency(): string | undefined {
  const text = execFileSync('apt-cache', ['depends', META_PACKAGE], { encoding: 'utf8', stdio: 'pipe' });
  return /^ +Depends: (linux-image-\S+)$/m.exec(text)?.[1];
}

/** Paths of these modules and of all that they need, in the order in which `insmod` takes them. */
export function moduleClosure(kernel: Kernel, names: readonly string[]): string[] {
  const folder = join(kernel.modulesFolder, kernel.version);
  const lines = readFileSync(join(folder, 'modules.dep'), 'utf8').trim().split('\n');
  const table = new Map(
    lines.map((line) => {
      const [path = '', needs = ''] = line.split(':');
      return [path, needs.split(' ').filter((need) => need !== '')];
    }),
  );
  const ordered = new Set<string>();
  const visit = (path: string) => {
    for (const need of table.get(path) ?? []) visit(need);
    ordered.add(join(folder, path));
  };
  for (const name of names) {
    const path = [...table.keys()].find((key) => basename(key) === `${name}.ko`);
    if (path === undefined) throw new Error(`the kernel ${kernel.version} has no module ${name}`);
    visit(path);
  }
  return [...ordered];
}
