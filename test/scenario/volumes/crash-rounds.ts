import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Crashes } from './crashes.ts';

/** Rounds in one test, which has a deadline of its own. */
const BATCH = 50;

/** The tests of a suite that made `crashes` before them: the rounds, so many in a test, and the end. */
export function testRounds(crashes: () => Crashes, rounds: number, seed: number): void {
  for (let from = 1; from <= rounds; from += BATCH) {
    const to = Math.min(rounds, from + BATCH - 1);
    test(`rounds ${from} to ${to}: every acknowledged flush is found, nothing that was never written`, async () => {
      for (let round = from; round <= to; round += 1) await crashes().round(`SEED=${seed} round ${round}`);
    });
  }

  test('in the end every byte verifies', async (t) => {
    await crashes().end();
    t.diagnostic(JSON.stringify(crashes().counts));
    assert.ok(crashes().counts.flushes > 0);
  });
}
