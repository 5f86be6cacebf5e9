import type { BlockDevice } from '../../../guest/nbd/device.ts';
import { BLOCK_BYTES } from '../../../guest/volume/limits.ts';

/** Write number N goes to block N modulo `blocks`, and is N throughout. */
export async function writeNumber(volume: BlockDevice, number: number, blocks: number): Promise<void> {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  for (let at = 0; at < BLOCK_BYTES; at += 4) bytes.writeUInt32LE(number, at);
  await volume.write((number % blocks) * BLOCK_BYTES, bytes, { fua: false });
}

/** The number in each block; a torn one would show. */
export async function readNumbers(volume: BlockDevice, blocks: number): Promise<number[]> {
  const found: number[] = [];
  for (let block = 0; block < blocks; block += 1) {
    const bytes = await volume.read(block * BLOCK_BYTES, BLOCK_BYTES);
    const number = bytes.readUInt32LE(0);
    for (let at = 0; at < BLOCK_BYTES; at += 4) {
      if (bytes.readUInt32LE(at) !== number) throw new Error(`block ${block} is torn`);
    }
    found.push(number);
  }
  return found;
}
