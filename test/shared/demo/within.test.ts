import assert from 'node:assert/strict';
import { test } from 'node:test';
import { within } from '../../../shared/demo/within.ts';

test('a step that does not end in time is named', async () => {
  await assert.rejects(within(1, 'umount', new Promise(() => {})), {
    code: 'ERR_DEMO_FAILED',
    message: 'umount did not end within 1 ms',
  });
});

test('a step that ends keeps its outcome', async () => {
  const failure = new Error('no such device');
  assert.equal(await within(60_000, 'mount', Promise.resolve('mounted')), 'mounted');
  await assert.rejects(within(60_000, 'mount', Promise.reject(failure)), failure);
});
