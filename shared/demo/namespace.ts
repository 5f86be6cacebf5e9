import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readlink } from 'node:fs/promises';
import { PosternError } from '../errors.ts';
import { within } from './within.ts';

export type NamespaceKind = 'net' | 'mount';

const FLAGS: Record<NamespaceKind, readonly string[]> = {
  net: ['--net'],
  mount: ['--mount', '--propagation', 'private'],
};
/** As /proc names them. */
const NAMES: Record<NamespaceKind, string> = { net: 'net', mount: 'mnt' };
/** The last to leave a mount namespace unmounts what is left in it, which a disk that does not answer holds up. */
const CLOSE_TIMEOUT_MS = 20_000;
const POLLS = 500;
const POLL_MS = 10;

/**
 * A namespace without a name lives as long as a process is in it: `cat` holds it until its input ends, which it does even
 * when the demo is killed. So nothing is left behind.
 */
export class Namespace {
  readonly #kind: NamespaceKind;
  readonly #holder: ChildProcess;

  constructor(kind: NamespaceKind) {
    this.#kind = kind;
    // Of a process group of its own: an interrupt on the terminal is for the demo, which then ends it in order.
    this.#holder = spawn('unshare', [...FLAGS[kind], 'cat'], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
    });
    this.#holder.on('error', () => {});
  }

  static isPermitted(kind: NamespaceKind): boolean {
    return spawnSync('unshare', [...FLAGS[kind], 'true']).status === 0;
  }

  get pid(): string {
    return String(this.#holder.pid);
  }

  /** `unshare` is a process before it has unshared: wait until its namespace is another than ours. */
  async ready(): Promise<void> {
    const name = NAMES[this.#kind];
    const ours = await readlink(`/proc/self/ns/${name}`);
    for (let poll = 0; poll < POLLS; poll += 1) {
      const theirs = await readlink(`/proc/${this.pid}/ns/${name}`).catch(() => ours);
      if (theirs !== ours) return;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    throw new PosternError('ERR_DEMO_FAILED', `unshare --${this.#kind} made no namespace within 5 s`);
  }

  /** The command that runs `words` inside. */
  enter(words: readonly string[]): readonly string[] {
    // With the holder's root, which in a chroot is another than its mount namespace's.
    const root = this.#kind === 'mount' ? ['--root'] : [];
    return ['nsenter', `--target=${this.pid}`, `--${this.#kind}`, ...root, ...words];
  }

  /** @throws PosternError ERR_DEMO_FAILED */
  async close(): Promise<void> {
    const holder = this.#holder;
    if (holder.pid === undefined || holder.exitCode !== null || holder.signalCode !== null) return;
    const gone = once(holder, 'exit');
    holder.stdin?.end();
    await within(CLOSE_TIMEOUT_MS, `the ${this.#kind} namespace`, gone);
  }
}
