import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connectRelay } from '../../guest/objects/client.ts';
import { openDirectoryStore } from '../../parent/objects/directory.ts';
import { claimObject } from '../../shared/objects/claim.ts';
import { seededRandom } from '../../shared/objects/random.ts';
import { retryingStore } from '../../shared/objects/retry.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import { bodyOf, keyOf, writerOf } from './directory-objects.ts';

const SEED = Number(process.env['SEED'] ?? Date.now() & 0x7fffffff);
const KILLS = process.env['SLOW'] === '1' ? 200 : 6;
const MAX_LIFE_MS = 300;
const WRITERS = ['a', 'b', 'c', 'd'];
const PARENT = fileURLToPath(new URL('object-parent.ts', import.meta.url));

/** The parent that lives now; the next takes its place when it is killed. */
class Parent {
  readonly #args: readonly string[];
  #child: ChildProcess | undefined;

  constructor(folder: string, socket: string) {
    this.#args = [folder, socket];
  }

  async start(): Promise<void> {
    const child = spawn(process.execPath, [PARENT, ...this.#args], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#child = child;
    await Promise.race([once(child.stdout, 'data'), once(child, 'exit')]);
    assert.equal(child.exitCode, null, 'the parent did not start');
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
}

describe('a parent that is killed again and again', () => {
  let folder = '';
  let parent: Parent | undefined;
  after(async () => {
    await parent?.kill();
    await rm(folder, { recursive: true, force: true });
  });

  it(`loses nothing that it answered for, and leaves no writer in doubt (SEED=${SEED})`, async () => {
    folder = await mkdtemp(`${tmpdir()}/postern-parent-`);
    const [objects, path] = [await mkdtemp(`${folder}/objects-`), `${folder}/parent.sock`];
    const random = seededRandom(SEED);
    parent = new Parent(objects, path);
    await parent.start();
    const relay = connectRelay({ open: () => connectStream({ kind: 'unix', path }) });
    const store = retryingStore(relay.store);
    const answers = new Map<string, Map<string, string>>();
    let running = true;
    // All four race for the same keys, in the same order.
    const write = async (name: string): Promise<void> => {
      for (let index = 0; running; index += 1) {
        const key = keyOf(index);
        const answer = await claimObject(store, key, bodyOf(key, name, 1 + (index % 5) * 60_000));
        answers.set(key, (answers.get(key) ?? new Map<string, string>()).set(name, answer));
      }
    };
    const writers = WRITERS.map(write);
    for (let kill = 0; kill < KILLS; kill += 1) {
      await sleep(random() * MAX_LIFE_MS);
      await parent.kill();
      await parent.start();
    }
    running = false;
    await Promise.all(writers);
    relay.close();
    await parent.kill();

    const left = await openDirectoryStore(objects);
    assert.ok(answers.size > 0);
    for (const [key, said] of answers) {
      const body = await left.get(key);
      assert.ok(body !== undefined, `SEED=${SEED} ${key}: gone`);
      const owner = writerOf(key, body);
      for (const [name, answer] of said) {
        assert.equal(
          answer,
          name === owner ? 'stored' : 'taken',
          `SEED=${SEED} ${key}: ${name}, and of ${owner}`,
        );
      }
    }
  });
});
