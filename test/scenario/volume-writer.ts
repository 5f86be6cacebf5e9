import { FileAnchor } from '../../guest/counter/file.ts';
import { attachVolume } from '../../guest/volume/attach.ts';
import type { Volume } from '../../guest/volume/engine.ts';
import { systemEnvironment } from '../../guest/volume/environment.ts';
import { collectGarbage } from '../../guest/volume/gc.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { createSnapshot, deleteSnapshot } from '../../guest/volume/snapshot.ts';
import { openDirectoryStore } from '../../parent/objects/directory.ts';
import { SMALL_LIMITS } from '../volume/world.ts';
import { Mortal } from './storage/mortal.ts';
import { readNumbers, writeNumber } from './storage/numbered-blocks.ts';

/**
 * A guest that is to be killed: attaches, prints what it finds in each block, then writes and flushes, and prints the number
 * of each write that a flush has acknowledged. Without a step at which it kills itself it does so for ever; with one it does
 * a little of everything that a volume can do, detaches, and prints how many steps that took.
 * Arguments: store folder, anchor folder, first number, blocks, step.
 */
const [store = '', anchor = '', first = '0', blockCount = '16', diesAt] = process.argv.slice(2);
const blocks = Number(blockCount);
const log = { info() {}, warn() {}, error() {} };
const mortal = new Mortal(Number(diesAt ?? Number.NaN));
let number = Number(first);

const volume = await attachVolume({
  ...mortal.wrap({
    store: await openDirectoryStore(store),
    prefix: 'vol',
    name: 'data',
    keyProvider: { kind: 'test', rootKey: async () => Buffer.alloc(32, 7) },
    anchor: new FileAnchor(anchor),
    environment: systemEnvironment(log),
    limits: { ...SMALL_LIMITS, deleteGraceMs: 20 },
  }),
  takeover: true,
});
process.stdout.write(`found ${(await readNumbers(volume, blocks)).join(' ')}\n`);
if (diesAt === undefined) for (;;) await writeAndFlush(3);
await aLittleOfEverything(volume);
process.stdout.write(`steps ${mortal.steps}\n`);

async function writeAndFlush(count: number): Promise<void> {
  for (let written = 0; written < count; written += 1, number += 1) {
    await writeNumber(volume, number, blocks);
    process.stdout.write(`wrote ${number}\n`);
  }
  await volume.flush();
  process.stdout.write(`flushed ${number - 1}\n`);
}

/** Small and large flushes, a snapshot, space given back, a checkpoint, repacking, and the way out. */
async function aLittleOfEverything({ parts }: Volume): Promise<void> {
  await writeAndFlush(3);
  await createSnapshot(volume, `kept-${number}`);
  await volume.write(2 * blocks * BLOCK_BYTES, Buffer.alloc(60 * BLOCK_BYTES, 'gone'), { fua: false });
  await writeAndFlush(blocks);
  await volume.trim(2 * blocks * BLOCK_BYTES, 60 * BLOCK_BYTES, { fua: true });
  // With those of lives that did not get this far.
  for (const { name } of [...parts.checkpointer.snapshots]) await deleteSnapshot(volume, name);
  for (let flushes = 0; flushes < 4; flushes += 1) await writeAndFlush(1 + flushes);
  await parts.checkpointer.request();
  await collectGarbage(volume, { dryRun: false });
  await writeAndFlush(2);
  await volume.detach();
}
