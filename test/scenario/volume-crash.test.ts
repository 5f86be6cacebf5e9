import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { FileAnchor } from '../../guest/counter/file.ts';
import { checkVolume } from '../../guest/volume/check.ts';
import { createVolume, type VolumeAccess } from '../../guest/volume/create.ts';
import { systemEnvironment } from '../../guest/volume/environment.ts';
import { inspectVolume } from '../../guest/volume/inspect.ts';
import { openDirectoryStore } from '../../parent/objects/directory.ts';
import { seededRandom } from '../../shared/objects/random.ts';

const WRITER = fileURLToPath(new URL('./volume-writer.ts', import.meta.url));
const BLOCKS = 16;
const IS_SLOW = process.env['SLOW'] === '1';
const ROUNDS = IS_SLOW ? 300 : 12;
/** Of some 400 steps of a life, all under SLOW. */
const STEPS = IS_SLOW ? Number.POSITIVE_INFINITY : 16;
const SEED = Number(process.env['SEED'] ?? 4242);

interface Life {
  /** What each block held after the attach; undefined when it did not get that far. */
  readonly found: readonly number[] | undefined;
  readonly wrote: number;
  readonly flushed: number;
  /** How many steps it took, when it came to its end. */
  readonly steps: number | undefined;
}

/** When a life ends: after so many words, or by itself at a step. */
type Death = { readonly saying: number } | { readonly atStep: number };

/** A volume and what is known of it from the outside, over many lives of its guest. */
class Lives {
  readonly #folder: string;
  #first = 1;
  #wrote = 0;
  /** Of each block: the newest write that was flushed, or that an attach has shown. */
  readonly #safe = new Array<number>(BLOCKS).fill(0);

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async begin(): Promise<Lives> {
    const lives = new Lives(await mkdtemp(join(tmpdir(), 'postern-crash-')));
    await mkdir(join(lives.#folder, 'objects'));
    await createVolume({ ...(await lives.#access()), sizeBytes: 2 ** 30, mode: { kind: 'strict' } });
    return lives;
  }

  remove(): Promise<void> {
    return rm(this.#folder, { recursive: true, force: true });
  }

  /** One life, and what it found compared with what it had to. */
  async live(death: Death, context: string): Promise<Life> {
    const life = await this.#run(death);
    for (const [block, number] of life.found?.entries() ?? []) {
      const least = this.#safe[block] ?? 0;
      // At least the newest safe write of this block, at most the newest that was begun, one more than was said.
      const text = `${context}: block ${block} holds ${number}, safe was ${least}, begun ${this.#wrote + 1}`;
      assert.ok(number === 0 || number % BLOCKS === block, text);
      assert.ok(number >= least && number <= this.#wrote + 1, text);
      this.#safe[block] = number;
    }
    for (let number = this.#first; number <= life.flushed; number += 1) this.#safe[number % BLOCKS] = number;
    this.#wrote = life.wrote;
    this.#first = life.wrote + 2;
    return life;
  }

  async check(): Promise<void> {
    const report = await checkVolume(await inspectVolume(await this.#access()));
    assert.deepEqual(report.problems, []);
  }

  async #run(death: Death): Promise<Life> {
    const words = [WRITER, join(this.#folder, 'objects'), join(this.#folder, 'anchor'), String(this.#first)];
    words.push(String(BLOCKS), ...('atStep' in death ? [String(death.atStep)] : []));
    const child: ChildProcess = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'pipe'] });
    let errors = '';
    child.stderr?.on('data', (text) => {
      errors += text;
    });
    const closed = once(child, 'close');
    let life: Life = { found: undefined, wrote: this.#wrote, flushed: 0, steps: undefined };
    let said = 0;
    if (child.stdout === null) throw new Error('no output');
    for await (const line of createInterface(child.stdout)) {
      life = heard(life, line);
      said += 1;
      if ('saying' in death && said === death.saying) child.kill('SIGKILL');
    }
    await closed;
    // Killed, or done: anything else is a failure of its own.
    assert.ok(child.signalCode === 'SIGKILL' || life.steps !== undefined, errors);
    return life;
  }

  async #access(): Promise<VolumeAccess> {
    return {
      store: await openDirectoryStore(join(this.#folder, 'objects')),
      prefix: 'vol',
      name: 'data',
      keyProvider: { kind: 'test', rootKey: async () => Buffer.alloc(32, 7) },
      anchor: new FileAnchor(join(this.#folder, 'anchor')),
      environment: systemEnvironment({ info() {}, warn() {}, error() {} }),
    };
  }
}

function heard(life: Life, line: string): Life {
  const [verb, ...numbers] = line.split(' ');
  if (verb === 'found') return { ...life, found: numbers.map(Number) };
  if (verb === 'wrote') return { ...life, wrote: Number(numbers[0]) };
  if (verb === 'flushed') return { ...life, flushed: Number(numbers[0]) };
  return { ...life, steps: Number(numbers[0]) };
}

describe(`a guest that is killed (SEED=${SEED})`, () => {
  const random = seededRandom(SEED);
  let lives: Lives;
  before(async () => {
    lives = await Lives.begin();
  });
  after(() => lives.remove());

  test(`${ROUNDS} times at random has lost nothing that was flushed, and attaches every time`, async () => {
    for (let round = 1; round <= ROUNDS; round += 1) {
      await lives.live({ saying: 2 + Math.floor(random() ** 2 * 120) }, `SEED=${SEED} round ${round}`);
    }
    await lives.check();
  });

  test(`at ${IS_SLOW ? 'each' : STEPS} of the steps of a life has lost nothing either`, async (t) => {
    const { steps = 0 } = await lives.live({ atStep: 0 }, 'a whole life');
    t.diagnostic(`${steps} steps`);
    assert.ok(steps > 50);
    const stride = Math.max(1, steps / STEPS);
    for (let at = 1 + Math.floor(random() * stride); at <= steps; at += stride) {
      const step = Math.floor(at);
      await lives.live({ atStep: step }, `step ${step}`);
    }
    await lives.live({ atStep: 0 }, 'a last life');
    await lives.check();
  });
});
