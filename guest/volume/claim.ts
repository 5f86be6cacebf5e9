import { createHmac } from 'node:crypto';
import { FieldWriter } from './fields.ts';
import { label, u64Field, type VolumeKeys } from './keys.ts';

const CLAIM_MAGIC = 0x31455650;
const CLAIM_NONCE_BYTES = 32;
export const CLAIM_BYTES = 4 + 4 + 8 + CLAIM_NONCE_BYTES + 32;

/**
 * What an attach puts under its epoch's name: random, so that its own PUT can be told from another's. The MAC is for
 * `check`, which says whose claim it is; nothing else depends on a claim's bytes.
 */
export function encodeClaim(keys: VolumeKeys, epoch: number, nonce: Buffer): Buffer {
  const front = new FieldWriter(CLAIM_BYTES).u32(CLAIM_MAGIC).u32(1).u64(epoch).raw(nonce).finish();
  return Buffer.concat([front, claimMac(keys, epoch, nonce)]);
}

/** True when a holder of the volume's keys made this claim for this epoch. */
export function isClaim(keys: VolumeKeys, epoch: number, bytes: Buffer): boolean {
  if (bytes.length !== CLAIM_BYTES) return false;
  return encodeClaim(keys, epoch, bytes.subarray(16, 16 + CLAIM_NONCE_BYTES)).equals(bytes);
}

function claimMac(keys: VolumeKeys, epoch: number, nonce: Buffer): Buffer {
  const input = label('claim', keys.volumeId, u64Field(epoch), nonce);
  return createHmac('sha256', keys.name).update(input).digest();
}
