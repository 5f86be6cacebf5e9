import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const POSTERN = fileURLToPath(new URL('../../shared/cli/postern.ts', import.meta.url));
const isRoot = process.getuid?.() === 0;

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
});

/** What a demo could leave: its folder, its processes. */
function traces(): string[] {
  const folders = readdirSync(tmpdir()).filter((name) => name.startsWith('postern-demo-'));
  const processes = readdirSync('/proc').filter((name) => {
    try {
      return /^\d+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, 'utf8').includes('postern-demo-');
    } catch {
      return false;
    }
  });
  return [...folders, ...processes];
}
