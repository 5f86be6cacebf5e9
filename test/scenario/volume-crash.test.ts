import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
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
const ROUNDS = process.env['SLOW'] === '1' ? 300 : 12;
const SEED = Number(process.env['SEED'] ?? 4242);

let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-crash-'));
  await mkdir(join(folder, 'objects'));
});
after(() => rm(folder, { recursive: true, force: true }));

async function access(): Promise<VolumeAccess> {
  return {
    store: await openDirectoryStore(join(folder, 'objects')),
    prefix: 'vol',
    name: 'data',
    keyProvider: { kind: 'test', rootKey: async () => Buffer.alloc(32, 7) },
    anchor: new FileAnchor(join(folder, 'anchor')),
    environment: systemEnvironment({ info() {}, warn() {}, error() {} }),
  };
}

interface Life {
  /** What each block held after the attach. */
  readonly found: readonly number[];
  readonly wrote: number;
  readonly flushed: number;
}

/** Lets a writer live until it has said `lines` things, and kills it in the middle of whatever it does then. */
async function live(first: number, lines: number): Promise<Life> {
  const words = [WRITER, join(folder, 'objects'), join(folder, 'anchor'), String(first), String(BLOCKS)];
  const child: ChildProcess = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'pipe'] });
  let errors = '';
  child.stderr?.on('data', (text) => {
    errors += text;
  });
  const life = { found: [] as number[], wrote: first - 1, flushed: first - 1 };
  let said = 0;
  if (child.stdout === null) throw new Error('no output');
  const closed = once(child, 'close');
  for await (const line of createInterface(child.stdout)) {
    const [verb, ...numbers] = line.split(' ');
    if (verb === 'found') life.found = numbers.map(Number);
    if (verb === 'wrote') life.wrote = Number(numbers[0]);
    if (verb === 'flushed') life.flushed = Number(numbers[0]);
    said += 1;
    if (said === lines) child.kill('SIGKILL');
  }
  await closed;
  assert.ok(life.found.length === BLOCKS, errors);
  return life;
}

test(`a guest killed ${ROUNDS} times has lost nothing that was flushed, and attaches every time`, async (t) => {
  t.diagnostic(`seed ${SEED}`);
  const random = seededRandom(SEED);
  await createVolume({ ...(await access()), sizeBytes: 2 ** 30, mode: { kind: 'strict' } });
  let first = 1;
  let wrote = 0;
  /** Of each block: the newest write that was flushed. */
  const flushed = new Array<number>(BLOCKS).fill(0);
  for (let round = 0; round <= ROUNDS; round += 1) {
    const life = await live(first, 2 + Math.floor(random() ** 2 * 120));
    for (const [block, number] of life.found.entries()) {
      const least = flushed[block] ?? 0;
      // At least the newest flushed write of this block, at most the newest that was begun, one more than was said.
      const text = `round ${round}: block ${block} holds ${number}, flushed was ${least}, begun ${wrote + 1}`;
      assert.ok(number === 0 || number % BLOCKS === block, text);
      assert.ok(number >= least && number <= wrote + 1, text);
      flushed[block] = number;
    }
    for (let number = first; number <= life.flushed; number += 1) flushed[number % BLOCKS] = number;
    wrote = life.wrote;
    first = wrote + 2;
  }
  const report = await checkVolume(await inspectVolume(await access()));
  assert.deepEqual(report.problems, []);
});
