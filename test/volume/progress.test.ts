import assert from 'node:assert/strict';
import { test } from 'node:test';
import { progressOn } from '../../guest/volume/progress.ts';

function shown(isTTY: boolean, json: boolean): string {
  let text = '';
  const output = { isTTY, write: (piece: string) => (text += piece) };
  const { show, end } = progressOn(output, json);
  // Of one step as often as a person reads, or a log bears; of each new one at once.
  for (let count = 0; count < 1000; count += 1) show({ step: 'reading', segments: count, of: 1000 });
  show({ step: 'looking for orphans' });
  end();
  return text;
}

test('a terminal shows one line that is rewritten, and cleared in the end', () => {
  const text = shown(true, false);
  assert.ok(text.startsWith('\r\x1b[Kreading: 0 segments, 1000 of'), JSON.stringify(text));
  assert.ok(text.endsWith('\r\x1b[Klooking for orphans\r\x1b[K'));
  assert.ok(!text.includes('\n'));
});

test('a log gets a line now and then, a machine the same as JSON', () => {
  assert.match(shown(false, false), /^reading: 0 segments, 1000 of\n(.*\n)*looking for orphans\n$/);
  for (const isTTY of [true, false]) {
    const lines = shown(isTTY, true)
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual(lines[0], { progress: { step: 'reading', segments: 0, of: 1000 } });
    assert.deepEqual(lines.at(-1), { progress: { step: 'looking for orphans' } });
    assert.ok(lines.length < 100);
  }
});
