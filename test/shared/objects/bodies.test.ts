import assert from 'node:assert/strict';
import { test } from 'node:test';
import { abandonBody, allocateBody, freeBytes, recycleBody } from '../../../shared/objects/bodies.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Memory that was given back is not there any more: the buffer over it is empty. */
function isFreed(body: Buffer): boolean {
  return body.length === 0;
}

test('a large body is used again', () => {
  const body = allocateBody(3 * MIB - 5);
  const store = body.buffer;
  recycleBody(body);
  const again = allocateBody(3 * MIB - 100);
  assert.equal(again.buffer, store);
  assert.equal(again.length, 3 * MIB - 100);
  recycleBody(again);
});

test('a body is taken back once, and only by who has it', () => {
  const body = allocateBody(MIB);
  recycleBody(body);
  recycleBody(body);
  const one = allocateBody(MIB);
  const two = allocateBody(MIB);
  assert.notEqual(one.buffer, two.buffer);
  const foreign = Buffer.alloc(MIB, 1);
  recycleBody(foreign);
  assert.equal(foreign.length, MIB);
  assert.notEqual(allocateBody(MIB).buffer, foreign.buffer);
});

test('what is too small to keep is freed at once; the smallest is left to the garbage collector', () => {
  const medium = allocateBody(64 * KIB);
  recycleBody(medium);
  assert.ok(isFreed(medium));
  const small = allocateBody(4 * KIB);
  recycleBody(small);
  assert.ok(!isFreed(small));
});

test('no more than a little lies idle: the rest is freed', () => {
  const bodies = Array.from({ length: 5 }, () => allocateBody(2 * MIB));
  for (const body of bodies) recycleBody(body);
  const kept = bodies.filter((body) => !isFreed(body));
  assert.ok(kept.length <= 2, `${kept.length} are kept`);
});

test('what a write may still read is neither used again nor freed', () => {
  for (const length of [64 * KIB, MIB]) {
    const body = allocateBody(length);
    abandonBody(body);
    recycleBody(body);
    assert.equal(body.length, length);
    assert.notEqual(allocateBody(length).buffer, body.buffer);
  }
});

test('bytes are freed only with all of their memory', () => {
  const whole = Buffer.allocUnsafeSlow(100);
  freeBytes(whole);
  assert.ok(isFreed(whole));
  const pooled = Buffer.from('a part of the pool');
  freeBytes(pooled);
  assert.equal(pooled.toString(), 'a part of the pool');
});
