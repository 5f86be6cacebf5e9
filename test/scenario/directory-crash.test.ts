import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { openDirectoryStore } from '../../parent/objects/directory.ts';
import { listAll } from '../../shared/objects/list-all.ts';
import { seededRandom } from '../../shared/objects/random.ts';
import { bodyOf, writerOf } from './directory-objects.ts';

const SEED = Number(process.env['SEED'] ?? Date.now() & 0x7fffffff);
const ROUNDS = process.env['SLOW'] === '1' ? 200 : 6;
const MAX_RUN_MS = 150;
const WRITER = fileURLToPath(new URL('directory-writer.ts', import.meta.url));

const folders: string[] = [];
after(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true }))));

interface Writer {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly exited: Promise<unknown>;
}

function startWriter(folder: string, name: string, seed: number): Writer {
  const child = spawn(process.execPath, [WRITER, folder, name, String(seed)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  return { child, output: () => output, exited: once(child, 'close') };
}

/** What a writer was told, the answers that came before its end. */
function answersOf({ output }: Writer): [answer: string, key: string][] {
  const lines = output().split('\n').slice(0, -1);
  return lines.map((line) => line.split(' ') as [string, string]);
}

describe('directory store, its process killed', () => {
  it(`has each object whole or not at all, and every one it answered for (SEED=${SEED})`, async () => {
    const random = seededRandom(SEED);
    for (let round = 0; round < ROUNDS; round += 1) {
      const folder = await mkdtemp(`${tmpdir()}/postern-crash-`);
      folders.push(folder);
      const owners = new Map<string, string>();
      // The second pair meets what the first left behind.
      for (const names of [
        ['a', 'b'],
        ['c', 'd'],
      ]) {
        const writers = names.map((name) => startWriter(folder, name, Math.floor(random() * 2 ** 31)));
        while (writers.some(({ output }) => output() === '')) {
          for (const { child } of writers) assert.equal(child.exitCode, null, `SEED=${SEED} a writer ended`);
          await sleep(1);
        }
        for (const { child } of writers) {
          await sleep(random() * MAX_RUN_MS);
          child.kill('SIGKILL');
        }
        await Promise.all(writers.map(({ exited }) => exited));
        await check(folder, names, writers, owners, `SEED=${SEED} round ${round}`);
      }
    }
  });
});

async function check(
  folder: string,
  names: readonly string[],
  writers: readonly Writer[],
  owners: Map<string, string>,
  place: string,
): Promise<void> {
  const store = await openDirectoryStore(folder);
  assert.deepEqual(await readdir(`${folder}/%tmp`), [], place);
  const found = new Map<string, string>();
  for await (const { key, sizeBytes } of listAll(store, '', { maxKeys: 1_000_000 })) {
    const body = await store.get(key);
    assert.equal(body?.length, sizeBytes, `${place} ${key}`);
    found.set(key, writerOf(key, body));
  }
  for (const [key, owner] of owners)
    assert.equal(found.get(key), owner, `${place} ${key}: changed after a crash`);
  for (const [index, writer] of writers.entries()) {
    for (const [answer, key] of answersOf(writer)) {
      const mine = found.get(key) === names[index];
      assert.ok(found.has(key), `${place} ${key}: ${answer}, and not there`);
      assert.equal(mine, answer === 'created', `${place} ${key}: ${answer}, and of ${found.get(key)}`);
    }
  }
  for (const [key, owner] of found) owners.set(key, owner);
  for (const key of [...found.keys()].slice(0, 20)) {
    assert.equal(await store.putIfAbsent(key, bodyOf(key, 'late', 10)), 'exists', place);
  }
}
