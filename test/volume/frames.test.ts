import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { attachVolume } from '../../guest/volume/attach.ts';
import { createVolume } from '../../guest/volume/create.ts';
import type { Volume } from '../../guest/volume/engine.ts';
import type { FrameRequest } from '../../guest/volume/frames.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { locationFrame, locationSegment } from '../../guest/volume/segment.ts';
import { SMALL_LIMITS, World } from './world.ts';

const NO = { fua: false };
/** Apart, so that each block is a frame of its own; more of them than the cache holds. */
const BLOCKS = 4 * (SMALL_LIMITS.readCacheBytes / BLOCK_BYTES);

/** A volume with one-block frames `0` to `BLOCKS - 1`, each full of its number, nothing of it in memory. */
async function withFrames(body: (volume: Volume, requests: FrameRequest[]) => Promise<void>): Promise<void> {
  const world = new World(5);
  await world.run(async () => {
    await createVolume(world.creation(2 * BLOCKS * BLOCK_BYTES));
    const first = await attachVolume(world.access());
    for (let count = 0; count < BLOCKS; count += 1) {
      await first.write(2 * count * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, count), NO);
    }
    await first.detach();
    const volume = await attachVolume(world.access());
    const places = await volume.parts.index.places(0, 2 * BLOCKS);
    const requests = Array.from({ length: BLOCKS }, (_, count): FrameRequest => {
      const place = places[2 * count] ?? 0;
      return { segment: locationSegment(place), frame: locationFrame(place), lba: 2 * count };
    });
    await body(volume, requests);
    await volume.detach();
  });
}

function isWhole(bytes: Buffer | undefined, count: number): boolean {
  return bytes?.equals(Buffer.alloc(BLOCK_BYTES, count)) === true;
}

describe('frames', () => {
  test('that are used stay, though the cache gives them up; then their memory is freed at once', async () => {
    await withFrames(async ({ parts: { frames } }, requests) => {
      const [first, ...others] = requests;
      assert.ok(first);
      let seen: Buffer | undefined;
      await frames.use([first], async ([bytes]) => {
        seen = bytes;
        for (const [index, other] of others.entries()) {
          await frames.use([other], ([found]) => assert.ok(isWhole(found, index + 1)));
        }
        assert.ok(frames.cache.usedBytes <= SMALL_LIMITS.readCacheBytes);
        assert.ok(isWhole(seen, 0));
      });
      assert.equal(seen?.length, 0);
    });
  });

  test('that nobody asks for again are freed after use, shared with who asks meanwhile', async () => {
    await withFrames(async ({ parts: { frames } }, [request]) => {
      assert.ok(request);
      const used: Buffer[] = [];
      const look = ([bytes]: readonly Buffer[]): void => {
        assert.ok(bytes && isWhole(bytes, 0));
        used.push(bytes);
      };
      await Promise.all([
        frames.use([request], look, { keep: false }),
        frames.use([request, request], look, { keep: false }),
      ]);
      assert.equal(new Set(used).size, 1);
      assert.equal(used[0]?.length, 0);
      assert.equal(frames.cache.usedBytes, 0);
      const { misses } = frames.cache;
      await frames.use([request, request], look);
      assert.equal(frames.cache.usedBytes, BLOCK_BYTES);
      assert.equal(frames.cache.misses, misses + 2, 'each request that is not there is missed once');
    });
  });

  test('that are there stay good when another of the same call fails', async () => {
    await withFrames(async ({ parts: { frames } }, [request]) => {
      assert.ok(request);
      await frames.use([request], () => undefined);
      const wrong = { ...request, segment: request.segment + 1000 };
      const both = frames.use([request, wrong], () => assert.fail('a frame that is not there'));
      await assert.rejects(both, { code: 'ERR_VOLUME_MISSING' });
      await assert.rejects(
        frames.use([request], () => Promise.reject(new Error('what the work throws'))),
        /what the work throws/,
      );
      await frames.use([request], ([bytes]) => assert.ok(isWhole(bytes, 0)));
    });
  });
});
