import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { PosternError } from '../errors.ts';
import { within } from './within.ts';

/** Longer than any step takes on a slow machine, an emulated one included; a step past it has failed. */
export const STEP_TIMEOUT_MS = 120_000;
/** Between SIGKILL and the end: milliseconds, unless the process waits for a disk that does not answer. */
const KILL_TIMEOUT_MS = 20_000;
/** What is kept of what a party says. */
const LINES_MAX_COUNT = 1000;

/** A process of the demo and what it has said: results on standard output, its log on standard error. */
export class PartyProcess {
  readonly log: string[] = [];
  readonly #name: string;
  readonly #stepTimeoutMs: number;
  readonly #child: ChildProcess;
  readonly #said: string[] = [];
  readonly #waiting = new Set<() => void>();
  #closed = false;

  constructor(name: string, words: readonly string[], stepTimeoutMs = STEP_TIMEOUT_MS) {
    const [program = '', ...rest] = words;
    this.#name = name;
    this.#stepTimeoutMs = stepTimeoutMs;
    this.#child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#follow(this.#child.stdout, this.#said);
    this.#follow(this.#child.stderr, this.log);
    // Not `exit`: its last words, which say why it ended, may still be in the pipes then.
    this.#child.on('close', () => {
      this.#closed = true;
      this.#wake();
    });
    this.#child.on('error', (error) => {
      this.log.push(error.message);
      this.#closed = true;
      this.#wake();
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Takes the next line of standard output. */
  line(): Promise<string> {
    return this.#until('the next result', () => this.#said.shift());
  }

  /** Waits for a line of the log for which `find` gives something. */
  logged<T>(what: string, find: (line: string) => T | undefined): Promise<T> {
    return this.#until(what, () => {
      for (const line of this.log) {
        const found = find(line);
        if (found !== undefined) return found;
      }
      return undefined;
    });
  }

  /** @throws PosternError ERR_DEMO_FAILED when not even SIGKILL ends it */
  async stop(): Promise<void> {
    if (this.#ended()) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), this.#stepTimeoutMs);
    await within(this.#stepTimeoutMs + KILL_TIMEOUT_MS, `the ${this.#name}`, gone);
    clearTimeout(timer);
  }

  /** As a power cut ends it. @throws PosternError ERR_DEMO_FAILED when that does not */
  async kill(): Promise<void> {
    if (this.#ended()) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await within(KILL_TIMEOUT_MS, `the ${this.#name}`, gone);
  }

  #ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null || this.#child.pid === undefined;
  }

  #howEnded(): string {
    const { exitCode, signalCode } = this.#child;
    return signalCode ?? (exitCode === null ? 'it never ran' : `exit code ${exitCode}`);
  }

  #follow(stream: NodeJS.ReadableStream | null, lines: string[]): void {
    if (stream === null) return;
    createInterface({ input: stream }).on('line', (line) => {
      if (lines.length < LINES_MAX_COUNT) lines.push(line);
      this.#wake();
    });
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
  }

  #until<T>(what: string, look: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const fellShort = (): void => fail(`did not give ${what} within ${this.#stepTimeoutMs} ms`);
      const timer = setTimeout(fellShort, this.#stepTimeoutMs);
      const wake = (): void => {
        const found = look();
        if (found !== undefined) finish(() => resolve(found));
        else if (this.#closed) fail(`ended (${this.#howEnded()}) before it gave ${what}`);
      };
      const finish = (settle: () => void): void => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        settle();
      };
      const fail = (why: string): void => {
        const text = `the ${this.#name} ${why}; it said:\n${this.log.slice(-20).join('\n')}`;
        finish(() => reject(new PosternError('ERR_DEMO_FAILED', text)));
      };
      this.#waiting.add(wake);
      wake();
    });
  }
}
