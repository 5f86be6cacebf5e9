import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { COMPILE_CACHE, warmCompileCache } from './compile-cache.ts';
import { fetchKernel, type Kernel, moduleClosure, REPOSITORY } from './kernel.ts';

/** The word on the kernel's command line by which a test knows that it runs inside (inside.ts). */
export const VM_FLAG = 'postern.vm=1';
/** What the VM needs to reach its root; all else is loaded by modprobe once the root is there. */
const BOOT_MODULES = ['virtio_pci', '9p', '9pnet_virtio', 'overlay'];
/** Loaded before the command unless it says otherwise: AF_VSOCK to oneself, packets, block devices over NBD or a file. */
const DEFAULT_MODULES = ['vsock_loopback', 'tun', 'nbd', 'veth', 'loop'];
/** Descriptors for a thousand streams with both ends and a splice in one process, and room. */
const OPEN_FILES = 65_536;
const MEMORY_MIB = 4096;
/** Before the VM is killed it says what hangs: time for a report on a busy machine. */
const REPORT_MS = 30_000;
/** Nothing that works keeps a task in the kernel for so long, and no deadline of a test is shorter. */
const BLOCKED_SECONDS = 30;
/** Room for the stacks of a dozen blocked tasks. */
const KERNEL_LOG_CHARACTERS = 24_000;

export interface VmRun {
  /** Program and arguments, run as root in the repository; Node is the repository's own. */
  readonly command: readonly string[];
  /** For boot, command and shutdown together; the VM is killed when it is over. */
  readonly timeoutMs: number;
  /** Kernel modules to load first, instead of vsock_loopback, tun, nbd, veth and loop. */
  readonly modules?: readonly string[];
  /** Called with each piece of output as it comes. */
  onOutput?(piece: string): void;
}

export interface VmResult {
  /** Of the command; undefined when the VM ended, or was ended, before the command had. */
  readonly exitCode: number | undefined;
  /**
   * Standard output and error of the command. When it failed or did not end, the kernel's last words follow, and what was
   * running and what was blocked in the kernel then.
   */
  readonly output: string;
}

/** Boots Debian's kernel over this machine's root, read only, runs one command there, and powers off. */
export async function runInVm(run: VmRun): Promise<VmResult> {
  const kernel = fetchKernel();
  warmCompileCache();
  const folder = mkdtempSync(join(tmpdir(), 'postern-vm-'));
  try {
    const marker = `exit-${randomUUID()}`;
    buildInitramfs(folder, kernel, runScript(run, kernel, marker));
    const { output, end } = await boot(folder, kernel, run);
    const found = new RegExp(`${marker} (\\d+)\\n`).exec(output);
    const exitCode = found === null ? undefined : Number(found[1]);
    const said = found === null ? `${output}\n${end}` : output.slice(0, found.index);
    if (exitCode === 0) return { exitCode, output: said };
    const log = readFileSync(join(folder, 'kernel.log'), 'utf8').slice(-KERNEL_LOG_CHARACTERS);
    return { exitCode, output: `${said}\nThe kernel's log ends:\n${log}` };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What init.sh sources at its end. */
function runScript(run: VmRun, kernel: Kernel, marker: string): string {
  const modules = (run.modules ?? DEFAULT_MODULES).map(quote).join(' ');
  const inner = `cd ${quote(REPOSITORY)} && ulimit -n ${OPEN_FILES} && exec ${run.command.map(quote).join(' ')}`;
  return `
ip link set lo up
mkdir -p /root/lib/modules
mount --bind /lower${quote(kernel.modulesFolder)} /root/lib/modules
# The repository may lie in a folder that a tmpfs now hides.
if ! [ -e /root${quote(REPOSITORY)} ]; then
  mkdir -p /root${quote(REPOSITORY)}
  mount --bind /lower${quote(REPOSITORY)} /root${quote(REPOSITORY)}
fi
export HOME=/tmp TERM=dumb NO_COLOR=1
export NODE_COMPILE_CACHE=${quote(COMPILE_CACHE)}
export PATH=${quote(join(REPOSITORY, 'node_modules/.bin'))}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
chroot /root /sbin/modprobe -a ${modules} >/dev/ttyS0 2>&1
# The kernel's own word on what it blocks for long; a deadline may have ended that when it is asked below.
dmesg -n 8
echo ${BLOCKED_SECONDS} >/proc/sys/kernel/hung_task_timeout_secs
report() {
  echo w >/proc/sysrq-trigger
  ps -o pid,ppid,stat,args | grep -v ']$'
  # Bytes that nobody reads are in the second column.
  chroot /root ss -xnp
}
(sleep ${Math.max(0, run.timeoutMs - REPORT_MS) / 1000}; report) &
chroot /root /bin/sh -c ${quote(inner)} </dev/null >/dev/ttyS0 2>&1
code=$?
[ $code = 0 ] || report
printf '%s %s\\n' ${marker} $code >/dev/ttyS0
# Waits until that is sent. Not sync, which would wait for a disk whose server is gone.
stty -F /dev/ttyS0 raw
PATH=/bin
`;
}

function buildInitramfs(folder: string, kernel: Kernel, script: string): void {
  const root = join(folder, 'initramfs');
  mkdirSync(join(root, 'bin'), { recursive: true });
  mkdirSync(join(root, 'modules'));
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  copyFileSync(join(import.meta.dirname, 'init.sh'), join(root, 'init'));
  for (const [index, path] of moduleClosure(kernel, BOOT_MODULES).entries()) {
    copyFileSync(path, join(root, 'modules', `${String(index).padStart(2, '0')}-${basename(path)}`));
  }
  writeFileSync(join(root, 'run.sh'), script);
  execFileSync(
    'sh',
    ['-c', 'chmod 755 init bin/busybox && find . | cpio -o -H newc --quiet >../initramfs.cpio'],
    {
      cwd: root,
    },
  );
}

async function boot(folder: string, kernel: Kernel, run: VmRun): Promise<{ output: string; end: string }> {
  const qemu = spawn('qemu-system-x86_64', qemuArguments(folder, kernel), {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const pipe of [qemu.stdout, qemu.stderr]) {
    pipe.setEncoding('utf8').on('data', (piece: string) => {
      output += piece;
      run.onOutput?.(piece);
    });
  }
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    qemu.kill('SIGKILL');
  }, run.timeoutMs);
  const onExit = () => qemu.kill('SIGKILL');
  process.once('exit', onExit);
  try {
    const how = await ended(qemu);
    const end = timedOut ? `was killed after ${run.timeoutMs} ms` : `ended early (QEMU: ${how})`;
    return { output, end: `the VM ${end}` };
  } finally {
    clearTimeout(timer);
    process.off('exit', onExit);
  }
}

function ended(qemu: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    qemu.once('error', reject);
    qemu.once('close', (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
}

function qemuArguments(folder: string, kernel: Kernel): string[] {
  return [
    // Software emulation: the same everywhere, nested machines included. The two processors take turns on one thread: before
    // 8.1 QEMU translates a page without holding it, and a processor that rewrites code meanwhile (V8 does, all the time)
    // leaves the other with a stale translation. Node then dies of SIGSEGV or of checks deep inside V8, one start in ten.
    ...['-accel', 'tcg,thread=single', '-smp', '2', '-cpu', 'max', '-m', String(MEMORY_MIB)],
    ...['-nodefaults', '-no-reboot', '-display', 'none', '-nic', 'none'],
    ...['-kernel', kernel.image, '-initrd', join(folder, 'initramfs.cpio')],
    ...['-append', `console=ttyS1 panic=-1 quiet ${VM_FLAG}`],
    // ttyS0 is the command's output, ttyS1 the kernel's: neither garbles the other.
    ...['-serial', 'stdio', '-serial', `file:${join(folder, 'kernel.log')}`],
    '-virtfs',
    'local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap',
  ];
}

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
