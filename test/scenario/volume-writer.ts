import { FileAnchor } from '../../guest/counter/file.ts';
import { attachVolume } from '../../guest/volume/attach.ts';
import { systemEnvironment } from '../../guest/volume/environment.ts';
import { BLOCK_BYTES } from '../../guest/volume/limits.ts';
import { openDirectoryStore } from '../../parent/objects/directory.ts';
import { SMALL_LIMITS } from '../volume/world.ts';

/**
 * A guest that is to be killed: attaches, prints what it finds in each block, then writes and flushes for ever, and prints
 * the number of each write that a flush has acknowledged. Arguments: store folder, anchor folder, first number, blocks.
 */
const [store = '', anchor = '', first = '0', blockCount = '16'] = process.argv.slice(2);
const blocks = Number(blockCount);
const log = { info() {}, warn() {}, error() {} };

const volume = await attachVolume({
  store: await openDirectoryStore(store),
  prefix: 'vol',
  name: 'data',
  keyProvider: { kind: 'test', rootKey: async () => Buffer.alloc(32, 7) },
  anchor: new FileAnchor(anchor),
  environment: systemEnvironment(log),
  limits: { ...SMALL_LIMITS, deleteGraceMs: 20 },
  takeover: true,
});

const found: number[] = [];
for (let block = 0; block < blocks; block += 1) {
  const bytes = await volume.read(block * BLOCK_BYTES, BLOCK_BYTES);
  const number = bytes.readUInt32LE(0);
  // Each block is one write's number throughout: a torn block would show.
  for (let at = 0; at < BLOCK_BYTES; at += 4) {
    if (bytes.readUInt32LE(at) !== number) throw new Error(`block ${block} is torn`);
  }
  found.push(number);
}
process.stdout.write(`found ${found.join(' ')}\n`);

for (let number = Number(first); ; number += 1) {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  for (let at = 0; at < BLOCK_BYTES; at += 4) bytes.writeUInt32LE(number, at);
  await volume.write((number % blocks) * BLOCK_BYTES, bytes, { fua: false });
  process.stdout.write(`wrote ${number}\n`);
  if (number % 3 === 0) {
    await volume.flush();
    process.stdout.write(`flushed ${number}\n`);
  }
}
