import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runAlone } from './dnssec/namespace.ts';

/** Five answers of 150 octets at the least. */
const FLIPS_MIN = 5 * 150 * 8;

test('a signed hierarchy through a parent that tampers: what is signed is right or bogus', async () => {
  const lines = await runAlone('tampering.ts', process.env['SLOW'] === '1' ? 'slow' : 'quick');
  const { done, flips } = lines.pop() as { done: number; flips: number };
  assert.deepEqual(lines, []);
  assert.ok(done > 20);
  assert.ok(flips > FLIPS_MIN, String(flips));
});
