import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Intake } from '../../../guest/nbd/intake.ts';

describe('NBD intake', () => {
  it('hands out a view of one chunk, and a copy of what straddles two', () => {
    const intake = new Intake();
    const chunk = Buffer.from('abcdef');
    intake.push(chunk);
    assert.equal(intake.take(4)?.buffer, chunk.buffer);
    assert.equal(intake.take(3), undefined);
    intake.push(Buffer.from('ghi'));
    assert.equal(intake.take(4)?.toString(), 'efgh');
    assert.equal(intake.bufferedBytes, 1);
  });

  it('moves and drops what is there', () => {
    const intake = new Intake();
    for (const text of ['ab', '', 'cde', 'f']) intake.push(Buffer.from(text));
    const target = Buffer.alloc(4, '.');
    assert.equal(intake.takeInto(target, 1), 3);
    assert.equal(target.toString(), '.abc');
    assert.equal(intake.skip(2), 2);
    assert.equal(intake.skip(9), 1);
    assert.equal(intake.take(0)?.length, 0);
    assert.equal(intake.takeInto(target, 0), 0);
  });
});
