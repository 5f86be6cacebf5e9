import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runAlone } from './dnssec/namespace.ts';

interface Summary {
  readonly done: number;
  readonly asked: number;
  readonly wrong: readonly { state: string; code: string; reason: string }[];
  readonly replayed: readonly { title: string; state: string; code?: string }[];
}

test('keys rolled while questions go on: never bogus, never insecure; a DS without its key and old answers are bogus', async () => {
  const lines = await runAlone('rollover.ts');
  const { done, asked, wrong, replayed } = lines.pop() as Summary;
  assert.deepEqual(lines, []);
  assert.equal(done, 5);
  // Every way of rolling was asked for in every step, through both resolvers.
  assert.ok(asked > 5 * 7 * 2 * 3, String(asked));
  assert.equal(wrong.length, 2);
  for (const { state, code, reason } of wrong) {
    assert.equal(state, 'bogus');
    assert.equal(code, 'ERR_DNS_KEY_MISSING');
    assert.equal(reason, 'no key that wrong.test. publishes matches its DS in test.');
  }
  assert.deepEqual(replayed, [
    { title: 'nothing', state: 'secure' },
    { title: 'data that a withdrawn key signed', state: 'bogus', code: 'ERR_DNS_KEY_MISSING' },
    { title: 'data and keys of before the DS changed', state: 'bogus', code: 'ERR_DNS_KEY_MISSING' },
    { title: 'data whose signature has run out', state: 'bogus', code: 'ERR_DNS_EXPIRED' },
  ]);
});
