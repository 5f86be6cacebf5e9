import assert from 'node:assert/strict';
import { test } from 'node:test';
import { interleaveFamilies } from '../../../guest/resolve/order.ts';

test('families take turns, IPv6 first, and nothing is said twice (RFC 8305 section 4)', () => {
  const mixed = ['192.0.2.1', '192.0.2.2', '2001:db8::1', '192.0.2.1', '192.0.2.3'];
  assert.deepEqual(interleaveFamilies(mixed), ['2001:db8::1', '192.0.2.1', '192.0.2.2', '192.0.2.3']);
  assert.deepEqual(interleaveFamilies([]), []);
});
