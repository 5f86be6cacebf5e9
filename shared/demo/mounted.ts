import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { PosternError } from '../errors.ts';
import type { Namespace } from './namespace.ts';
import type { Way } from './way.ts';
import { within } from './within.ts';

/**
 * For mkfs, mount or umount: below a second, a few in an emulated machine. Past it the disk does not answer, and not even
 * SIGKILL ends what waits for it.
 */
const COMMAND_TIMEOUT_MS = 60_000;
/** nbdfuse serves in some 20 ms. */
const POLLS = 500;
const POLL_MS = 10;

export interface MountOptions {
  readonly way: Way;
  /** Everything is mounted inside: what an end in disorder leaves mounted is gone with it. */
  readonly space: Namespace;
  readonly folder: string;
  readonly nbdUri: string;
}

/** An ext4 on the volume, mounted: on the agent's device, or through a loop device over what nbdfuse makes a file of. */
export class MountedVolume {
  readonly #options: MountOptions;
  #fuse: ChildProcess | undefined;
  #isMounted = false;

  constructor(options: MountOptions) {
    this.#options = options;
  }

  /** `format`: make the file system first. Whatever comes of it, `close` clears it away. */
  async open({ format }: { readonly format: boolean }): Promise<void> {
    const { way, folder } = this.#options;
    const device = await this.#device();
    // Without the wait for a second thought that mke2fs takes when it meets a file instead of a device.
    if (format) await this.#run('mkfs.ext4', '-q', '-F', device);
    // The loop device is set up by the mount, and gone with it by itself.
    const how = way.kind === 'loop' ? 'loop,nodev,nosuid,noexec' : 'nodev,nosuid,noexec';
    mkdirSync(join(folder, 'disk'), { recursive: true });
    await this.#run('mount', '-t', 'ext4', '-o', how, device, join(folder, 'disk'));
    this.#isMounted = true;
  }

  /** A file on it, as this process reaches it from outside of the namespace. */
  path(name: string): string {
    const { space, folder } = this.#options;
    return join(`/proc/${space.pid}/root`, folder, 'disk', name);
  }

  /** Unmounts, also what has lost its device. Idempotent. */
  async close(): Promise<void> {
    const { folder } = this.#options;
    if (this.#isMounted) await this.#unmount(join(folder, 'disk'));
    this.#isMounted = false;
    const fuse = this.#fuse;
    this.#fuse = undefined;
    if (fuse?.pid === undefined) return;
    const gone = hasEnded(fuse) ? undefined : once(fuse, 'exit');
    // One that lost its server may have ended by itself, and left its mount.
    await this.#unmount(join(folder, 'fuse'));
    if (!hasEnded(fuse)) fuse.kill('SIGTERM');
    if (gone !== undefined) await within(COMMAND_TIMEOUT_MS, 'nbdfuse', gone);
  }

  async #device(): Promise<string> {
    const { way, space, folder, nbdUri } = this.#options;
    if (way.kind === 'kernel') return way.device;
    const fuseFolder = join(folder, 'fuse');
    mkdirSync(fuseFolder, { recursive: true });
    // It dies with the demo, should that be killed; and an interrupt on the terminal is not for it. When its server is gone
    // it may abort, which is worth no core file.
    const words = ['prlimit', '--core=0', 'setpriv', '--pdeathsig', 'KILL', 'nbdfuse', fuseFolder, nbdUri];
    const [program = '', ...rest] = space.enter(words);
    const fuse = spawn(program, rest, { stdio: 'ignore', detached: true });
    this.#fuse = fuse;
    fuse.on('error', () => {});
    const file = join(fuseFolder, 'nbd');
    for (let poll = 0; poll < POLLS && !hasEnded(fuse); poll += 1) {
      if (existsSync(join(`/proc/${space.pid}/root`, file))) return file;
      await wait(POLL_MS);
    }
    throw new PosternError(
      'ERR_DEMO_FAILED',
      `nbdfuse serves no file (${fuse.exitCode ?? fuse.signalCode ?? 'it still runs'})`,
    );
  }

  async #unmount(path: string): Promise<void> {
    try {
      await this.#run('umount', path);
    } catch {
      // Busy for a moment longer, or without its device: it goes when the last user does.
      await this.#run('umount', '--lazy', path).catch(() => undefined);
    }
  }

  async #run(...words: string[]): Promise<void> {
    const [program = '', ...rest] = this.#options.space.enter(words);
    const [name = ''] = words;
    let child: ChildProcess | undefined;
    const run = new Promise<void>((resolve, reject) => {
      child = execFile(program, rest, (error, _stdout, stderr) => {
        const text = `${name} failed: ${stderr.trim() || error?.message}`;
        if (error === null) resolve();
        else reject(new PosternError('ERR_DEMO_FAILED', text, { cause: error }));
      });
    });
    try {
      await within(COMMAND_TIMEOUT_MS, name, run);
    } finally {
      if (child !== undefined && !hasEnded(child)) abandon(child);
    }
  }
}

/** Kills it, and does not wait for it any more, should that not help. */
function abandon(child: ChildProcess): void {
  child.kill('SIGKILL');
  child.stdout?.destroy();
  child.stderr?.destroy();
  child.unref();
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
