import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { seededRandom } from '../../shared/objects/random.ts';

const run = promisify(execFile);
const POSTERN = fileURLToPath(new URL('../../shared/cli/postern.ts', import.meta.url));
const isRoot = process.getuid?.() === 0;
const SEED = Number(process.env['SEED'] ?? Date.now() & 0x7fffffff);
const INTERRUPTIONS = process.env['SLOW'] === '1' ? 15 : 3;
/** From the first word of the disk to the end of the show, on a machine with other things to do. */
const DISK_SHOW_MS = 3_000;

interface Result {
  readonly step: string;
  readonly target: string;
  readonly result: string;
  readonly ok: boolean;
}

describe('postern demo', () => {
  for (const { who, words } of [
    { who: 'this user', words: [] as string[] },
    // Without root: the demo falls back to loopback, and says so.
    ...(isRoot
      ? [{ who: 'nobody', words: ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] }]
      : []),
  ]) {
    test(`as ${who}: everything goes as the policy says, and nothing is left behind`, async () => {
      const before = traces();
      const [program = '', ...rest] = [...words, process.execPath, POSTERN, 'demo', '--json'];
      const { stdout } = await run(program, rest, { env: { ...process.env, HOME: tmpdir() } });
      const results = JSON.parse(stdout) as Result[];
      assert.deepEqual(
        results.map(({ step, ok }) => `${step} ${ok}`),
        [
          'allowed true',
          'refused true',
          'refused true',
          'refused true',
          'direct true',
          'inbound true',
          'disk true',
          'crash true',
          'noise true',
        ],
      );
      for (const { step, result } of results) {
        if (step === 'refused') assert.match(result, /^403 .*details=/);
      }
      if (words.length === 0 && isRoot) {
        const direct = results.find(({ step }) => step === 'direct');
        assert.equal(direct?.result, 'ENETUNREACH');
        // test/setup.sh has installed what it takes.
        const disk = results.find(({ step }) => step === 'disk');
        assert.match(disk?.target ?? '', /^ext4 on /);
      }
      assert.deepEqual(traces(), before);
    });
  }

  test('for a person it tells the same, with the audit trail', async () => {
    const { stdout } = await run(process.execPath, [POSTERN, 'demo']);
    assert.match(stdout, /✔ allowed +https:\/\/api\.example\.com/);
    assert.match(stdout, /The audit trail:\n(.*\n)+.*refused: no-rule.*evil\.example\.net/);
    assert.match(stdout, /✔ noise .*no plaintext, deflated to 100\.\d %/);
    assert.match(stdout, /9 of 9 as it should be/);
  });

  test(`interrupted, or with nobody to listen any more, while it shows the disk, it leaves nothing behind (SEED=${SEED})`, async () => {
    const random = seededRandom(SEED);
    const before = traces();
    for (let turn = 0; turn < INTERRUPTIONS; turn += 1) {
      const demo = spawn(process.execPath, [POSTERN, 'demo'], { stdio: ['ignore', 'pipe', 'inherit'] });
      const ended = once(demo, 'exit');
      let text = '';
      for await (const piece of demo.stdout.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
        text += piece;
        if (/^A disk/m.test(text)) break;
      }
      demo.stdout.resume();
      await sleep(random() * DISK_SHOW_MS);
      const end = turn % 3;
      if (end === 2) demo.stdout.destroy();
      else demo.kill(end === 0 ? 'SIGINT' : 'SIGTERM');
      await ended;
      await settled(before, `SEED=${SEED} turn ${turn}`);
    }
  });

  test('when a step fails it says so, and leaves nothing behind', { skip: !isRoot }, async () => {
    const before = traces();
    const folder = mkdtempSync(join(tmpdir(), 'postern-stub-'));
    try {
      // One that mounts once only.
      const refuse = `if [ "$1" = -t ]; then [ ! -e ${folder}/used ] || exit 7; : >${folder}/used; fi`;
      const stub = `#!/bin/sh\n${refuse}\nexec /bin/mount "$@"\n`;
      writeFileSync(join(folder, 'mount'), stub, { mode: 0o755 });
      const env = { ...process.env, PATH: `${folder}:${process.env['PATH']}` };
      await assert.rejects(
        run(process.execPath, [POSTERN, 'demo'], { env }),
        /ERR_DEMO_FAILED\nmount failed/,
      );
      await settled(before, 'after a step that failed');
      const { stdout } = await run(process.execPath, [POSTERN, 'demo'], { env });
      assert.match(stdout, /This machine cannot do that after all \(mount failed/);
      assert.match(stdout, /✔ disk +NBD export data/);
      await settled(before, 'after another way was taken');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

/** The kernel takes down what it is the last to hold, such as a loop device, a moment later. */
async function settled(before: readonly string[], context: string): Promise<void> {
  for (let poll = 0; poll < 100 && traces().join() !== before.join(); poll += 1) await sleep(50);
  assert.deepEqual(traces(), before, context);
}

/** What a demo could leave: its folder, its processes, what it mounted, and its loop devices. */
function traces(): string[] {
  const folders = readdirSync(tmpdir()).filter((name) => name.startsWith('postern-demo-'));
  const processes = readdirSync('/proc').filter((name) => {
    try {
      return /^\d+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, 'utf8').includes('postern-demo-');
    } catch {
      return false;
    }
  });
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const loops = readdirSync('/sys/block')
    .filter((name) => name.startsWith('loop'))
    .flatMap((name) => {
      try {
        return readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8');
      } catch {
        return [];
      }
    });
  return [
    ...folders,
    ...processes,
    ...[...mounts, ...loops].filter((line) => line.includes('postern-demo-')),
  ];
}
