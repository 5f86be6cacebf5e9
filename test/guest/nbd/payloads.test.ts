import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { it } from 'node:test';
import { COMMAND } from '../../../guest/nbd/constants.ts';
import { fuzzRounds, fuzzSeed, SeededRandom } from '../../fuzz/fuzz.ts';
import { MemoryDevice } from './memory-device.ts';
import { encodeRequest } from './raw-client.ts';
import { RunningServer } from './running-server.ts';

/** Keeps every payload as it was handed over, and copies none, as a write-back device may. */
class RetainingDevice extends MemoryDevice {
  readonly kept = new Map<number, Buffer>();

  override async write(offset: number, data: Buffer): Promise<void> {
    this.kept.set(offset, data);
  }
}

/** Around every size at which the server changes how it reads: views, copies, reads to where they belong. */
const LENGTHS = [
  1, 27, 28, 512, 4096, 4097, 32_768, 65_535, 65_536, 65_537, 131_072, 131_073, 400_000, 1_500_000,
];

it('NBD payloads stay what they were, however they come and however long they are kept', async (t) => {
  const seed = fuzzSeed();
  t.diagnostic(`SEED=${seed}`);
  const random = new SeededRandom(seed);
  const noise = randomBytes(2_000_000);
  for (let round = 0; round < fuzzRounds(10); round += 1) {
    const device = new RetainingDevice(1024 * 1024 * 1024);
    const running = await RunningServer.start([{ name: '', device }], {
      inflightBytes: 768 * 1024,
      ownBytes: 256 * 1024,
    });
    t.after(() => running.close());
    const client = await running.open();
    const wanted = new Map<number, string>();
    const sent: Buffer[] = [];
    for (let count = 0; count < 60; count += 1) {
      const length = random.pick(LENGTHS);
      const offset = count * 2_000_000 + 1;
      const start = random.below(noise.length - length);
      const data = noise.subarray(start, start + length);
      wanted.set(offset, digest(data));
      sent.push(encodeRequest({ type: COMMAND.WRITE, cookie: BigInt(offset), offset, length }), data);
      if (random.below(3) === 0) sent.push(encodeRequest({ type: COMMAND.TRIM, cookie: 0n, length: 5 }));
    }
    const whole = Buffer.concat(sent);
    const trims = sent.length - 2 * wanted.size;
    const answered = (async () => {
      for (let count = 0; count < wanted.size + trims; count += 1) {
        const answer = await client.answer();
        assert.equal(answer.kind === 'simple' && answer.error, 0);
      }
    })();
    answered.catch(() => {});
    for (let at = 0; at < whole.length; ) {
      const length = random.pick([3, 100, 5000, 70_000, 1_000_000]);
      client.send(whole.subarray(at, at + length));
      at += length;
      if (random.below(2) === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await answered;
    for (const [offset, hash] of wanted) {
      const kept = device.kept.get(offset);
      assert.equal(kept && digest(kept), hash, `seed ${seed} round ${round} offset ${offset}`);
    }
    client.disconnect();
  }
});

function digest(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}
