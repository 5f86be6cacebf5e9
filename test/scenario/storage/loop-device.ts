import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { program } from '../nbd/program.ts';

const POLL_MS = 20;
const POLLS = 1500;

/** A block device over an NBD export without a kernel that has nbd: nbdfuse makes a file of it, losetup a device. */
export class LoopDevice {
  readonly path: string;
  readonly #fuse: ChildProcess;
  readonly #folder: string;

  private constructor(path: string, fuse: ChildProcess, folder: string) {
    this.path = path;
    this.#fuse = fuse;
    this.#folder = folder;
  }

  /** `folder` is made, and empty again after `detach`. Needs root. */
  static async attach(nbdSocket: string, folder: string): Promise<LoopDevice> {
    await mkdir(folder, { recursive: true });
    const fuse = spawn('nbdfuse', [folder, `nbd+unix:///?socket=${nbdSocket}`], { stdio: 'inherit' });
    const file = join(folder, 'nbd');
    await appeared(file, fuse);
    const found = await program('losetup', '-f', '--show', '--direct-io=on', '-b', '4096', file);
    return new LoopDevice(found.trim(), fuse, folder);
  }

  async detach(): Promise<void> {
    const ended = once(this.#fuse, 'exit');
    await program('losetup', '-d', this.path);
    // A device that something else looks at in that moment goes when it is let go.
    await until('the loop device is gone', async () => {
      return (await program('losetup', '-j', join(this.#folder, 'nbd'))) === '';
    });
    await program('umount', this.#folder);
    await ended;
  }
}

async function appeared(path: string, maker: ChildProcess): Promise<void> {
  await until(`${maker.spawnfile} made ${path}`, async () => {
    if (maker.exitCode !== null) throw new Error(`${maker.spawnfile} ended with ${maker.exitCode}`);
    return access(path).then(
      () => true,
      () => false,
    );
  });
}

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (let poll = 0; poll < POLLS; poll += 1) {
    if (await isSo()) return;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  throw new Error(`never: ${what}`);
}
