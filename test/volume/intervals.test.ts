import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deleteRange, IntervalSet } from '../../guest/volume/intervals.ts';
import { seededRandom } from '../../shared/objects/random.ts';

test('an interval set agrees with a set of numbers', () => {
  const random = seededRandom(11);
  for (let round = 0; round < 200; round += 1) {
    const intervals = new IntervalSet();
    const numbers = new Set<number>();
    for (let step = 0; step < 20; step += 1) {
      const start = Math.floor(random() * 100);
      const end = start + 1 + Math.floor(random() * 15);
      intervals.add(start, end);
      for (let value = start; value < end; value += 1) numbers.add(value);
    }
    for (let value = 0; value < 120; value += 1) {
      assert.equal(intervals.has(value), numbers.has(value));
      const range = Array.from({ length: 7 }, (_, index) => value + index);
      assert.equal(
        intervals.overlaps(value, value + 7),
        range.some((other) => numbers.has(other)),
      );
      assert.equal(
        intervals.covers(value, value + 7),
        range.every((other) => numbers.has(other)),
      );
    }
    const list = [...intervals];
    assert.equal(
      list.reduce((sum, { start, end }) => sum + end - start, 0),
      numbers.size,
    );
    for (const [index, { start }] of list.entries())
      assert.ok(index === 0 || start > (list[index - 1]?.end ?? start));
  }
});

test('ranges are deleted whether the map or the range is larger', () => {
  for (const size of [3, 300]) {
    const map = new Map(Array.from({ length: size }, (_, index) => [index * 2, index]));
    const gone: number[] = [];
    deleteRange(map, 2, 6, (value) => gone.push(value));
    assert.deepEqual(gone.sort(), [1, 2]);
    assert.equal(map.size, size - 2);
  }
});
