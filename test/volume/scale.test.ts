import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attachVolume } from '../../guest/volume/attach.ts';
import { createVolume } from '../../guest/volume/create.ts';
import type { Volume } from '../../guest/volume/engine.ts';
import { BLOCK_BYTES, DEFAULT_LIMITS, PAGE_ENTRIES, type VolumeLimits } from '../../guest/volume/limits.ts';
import type { ObjectCounts } from '../../guest/volume/objects.ts';
import { seededRandom } from '../../shared/objects/random.ts';
import { World } from './world.ts';

const IS_SLOW = process.env['SLOW'] === '1';
const NO = { fua: false };
const KIB = 1024;

/** One sixteenth of the defaults, so that a few thousand scattered blocks stand to them as 10 GiB stand to the defaults. */
const SCALED: VolumeLimits = {
  ...DEFAULT_LIMITS,
  dirtyBytes: 2048 * KIB,
  spillBytes: 1024 * KIB,
  segmentBytes: 512 * KIB,
  inlineBytes: 512 * KIB,
  checkpointBlocks: 4096,
  pageCacheBytes: 1024 * KIB,
  readCacheBytes: 1536 * KIB,
  readAheadBytes: 512 * KIB,
  deleteGraceMs: 0,
};

/** Bytes that the engine holds on purpose; each has its limit, none knows the volume's size. */
function heldBytes(volume: Volume): number {
  const { memory, index, frames } = volume.parts;
  return memory.usedBytes + index.pages.cache.usedBytes + frames.cache.usedBytes;
}

/** Writes blocks scattered over the whole volume, with a flush now and then; returns the most that was held. */
async function scatter(volume: Volume, blocks: number, seed: number): Promise<number> {
  const random = seededRandom(seed);
  let most = 0;
  for (let count = 0; count < blocks; count += 1) {
    const block = Math.floor(random() * (volume.sizeBytes / BLOCK_BYTES));
    await volume.write(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, `block ${block} `), NO);
    if (count % 100 === 99) await volume.flush();
    most = Math.max(most, heldBytes(volume), overlayBytes(volume));
  }
  await volume.flush();
  return most;
}

/** A changed block in memory: two numbers in a map. */
function overlayBytes(volume: Volume): number {
  return volume.parts.index.current.blocks.size * 64;
}

async function lived(
  sizeBytes: number,
  blocks: number,
): Promise<{ held: number; attach: ObjectCounts; tail: number }> {
  const world = new World(3);
  world.limits = SCALED;
  return world.run(async () => {
    await createVolume(world.creation(sizeBytes));
    const volume = await attachVolume(world.access());
    const held = await scatter(volume, blocks, 9);
    await volume.detach();
    const again = await attachVolume(world.access());
    const attach = { ...again.parts.objects.counts };
    const tail = again.parts.checkpointer.tailCommits;
    // Found through the index, with nothing in memory.
    const block = Math.floor(seededRandom(9)() * (sizeBytes / BLOCK_BYTES));
    const text = `block ${block} `;
    assert.equal((await again.read(block * BLOCK_BYTES, text.length)).toString(), text);
    await again.detach();
    return { held, attach, tail };
  });
}

test('attaching costs the tail, whatever the size and whatever was written', async (t) => {
  const blocks = IS_SLOW ? 40_000 : 6_000;
  for (const sizeBytes of [2 ** 30, 2 ** 40]) {
    const { attach, tail, held } = await lived(sizeBytes, blocks);
    t.diagnostic(
      `${sizeBytes} bytes, ${blocks} blocks: ${attach.gets} GETs, ${attach.getBytes} bytes, tail ${tail}, held ${held}`,
    );
    assert.ok(tail <= SCALED.checkpointCommits + SCALED.pipelineCommits);
    // Header, wrap, head, checkpoint; a size and a GET for the head; one GET for each commit of the tail.
    assert.ok(attach.gets <= tail + 10, `${attach.gets} GETs for a tail of ${tail}`);
    assert.ok(attach.getBytes <= (tail + 10) * 64 * KIB);
    const bound = SCALED.dirtyBytes + SCALED.pageCacheBytes + SCALED.readCacheBytes;
    assert.ok(held <= bound, `${held} bytes held, over ${bound}`);
  }
});

test('the defaults fit 256 MiB by their own arithmetic', () => {
  const { dirtyBytes, largePuts, segmentBytes, pipelineCommits, inlineBytes, checkpointBlocks } =
    DEFAULT_LIMITS;
  const { pageCacheBytes, readCacheBytes, readBytes, readRequests } = DEFAULT_LIMITS;
  const sealing = largePuts * segmentBytes + pipelineCommits * inlineBytes;
  // Two overlays of at most twice the blocks at which writes wait; a map's entry of two numbers is about 48 bytes.
  const overlays = 3 * checkpointBlocks * 48;
  // A checkpoint gathers one segment of pages and seals it.
  const checkpoint = 2 * segmentBytes;
  const caches = pageCacheBytes + readCacheBytes + 2 * readBytes * readRequests;
  const sum = dirtyBytes + sealing + overlays + checkpoint + caches;
  assert.ok(sum <= 176 * KIB * KIB, `${sum / KIB / KIB} MiB`);
  // 1 TiB of index is 2^19 leaves; none of this has it as a factor.
  assert.equal(2 ** 40 / BLOCK_BYTES / PAGE_ENTRIES, 2 ** 19);
});
