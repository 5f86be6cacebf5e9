import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { COMMAND, COMMAND_FLAG, OPTION } from '../../guest/nbd/constants.ts';
import { MAX_QUERIES, MAX_STRING_BYTES } from '../../guest/nbd/limits.ts';
import { decodeContextOption, decodeInfoOption } from '../../guest/nbd/options.ts';
import { NbdServer } from '../../guest/nbd/server.ts';
import { streamPair } from '../../shared/transport/pair.ts';
import { MemoryDevice } from '../guest/nbd/memory-device.ts';
import { contextData, encodeOption, encodeRequest, infoData, u32 } from '../guest/nbd/raw-client.ts';
import { fuzzDecoder, fuzzRounds, fuzzSeed, mutate, SeededRandom } from './fuzz.ts';

const DEVICE_BYTES = 100_001;

/** Everything that a client may say, up to its DISC, in one piece. */
function session(structured: boolean): Buffer {
  const write = Buffer.from('some data to write');
  const length = write.length;
  return Buffer.concat([
    u32(3),
    encodeOption(OPTION.LIST, Buffer.alloc(0)),
    encodeOption(99, Buffer.from('?')),
    ...(structured ? [encodeOption(OPTION.STRUCTURED_REPLY, Buffer.alloc(0))] : []),
    encodeOption(OPTION.SET_META_CONTEXT, contextData('a', ['base:allocation'])),
    encodeOption(OPTION.INFO, infoData('b', [1, 2, 3])),
    encodeOption(OPTION.GO, infoData('a')),
    encodeRequest({ type: COMMAND.WRITE, cookie: 1n, offset: 7, length, flags: COMMAND_FLAG.FUA }),
    write,
    encodeRequest({ type: COMMAND.READ, cookie: 2n, offset: 0, length: 40 }),
    encodeRequest({ type: COMMAND.WRITE, cookie: 3n, offset: DEVICE_BYTES, length }),
    write,
    encodeRequest({ type: COMMAND.BLOCK_STATUS, cookie: 4n, offset: 0, length: DEVICE_BYTES }),
    encodeRequest({ type: COMMAND.WRITE_ZEROES, cookie: 5n, offset: 3, length: 9 }),
    encodeRequest({ type: COMMAND.READ, cookie: 6n, offset: 0, length: 70_000 }),
    // Beside the read: requests in flight together have no order.
    encodeRequest({ type: COMMAND.TRIM, cookie: 7n, offset: 80_000, length: DEVICE_BYTES - 80_000 }),
    encodeRequest({ type: COMMAND.FLUSH, cookie: 8n }),
    encodeRequest({ type: COMMAND.DISC }),
  ]);
}

/** A server of two devices, and what it says to the pieces that one client sends it. */
async function converse(pieces: Iterable<Buffer>): Promise<Buffer> {
  const server = new NbdServer({ log: pino({ level: 'silent' }) });
  server.add({ name: 'a', device: new MemoryDevice(DEVICE_BYTES) });
  server.add({ name: 'b', device: new MemoryDevice(512, { readOnly: true }) });
  const [near, far] = streamPair();
  server.serve(far);
  const said: Buffer[] = [];
  near.on('data', (part: Buffer) => said.push(part));
  near.on('error', () => {});
  const closed = new Promise((resolve) => near.once('close', resolve));
  near.once('end', () => near.end());
  for (const piece of pieces) {
    // Each write is its own message to the server: it is read before the next one is sent.
    if (!near.writableEnded)
      await new Promise<void>((resolve) => near.write(piece, () => setImmediate(resolve)));
  }
  near.end();
  await closed;
  await server.close(1000);
  assert.equal(server.connectionCount, 0);
  return Buffer.concat(said);
}

function* byteByByte(bytes: Buffer): Generator<Buffer> {
  for (const byte of bytes) yield Buffer.of(byte);
}

for (const structured of [false, true]) {
  const whole = session(structured);
  const kind = structured ? 'structured' : 'simple';

  test(`NBD session (${kind}): a byte at a time is answered as in one piece`, async () => {
    const expected = await converse([whole]);
    assert.ok(expected.length > 70_000 || structured);
    // Replies may overtake each other, and are told by their cookies: only their bytes as a set are compared.
    const sorted = (bytes: Buffer) => Buffer.from(bytes).sort();
    assert.deepEqual(sorted(await converse(byteByByte(whole))), sorted(expected));
  });

  test(`NBD session (${kind}): every truncation ends in a close`, async () => {
    for (let length = 0; length < whole.length; length += 1) await converse([whole.subarray(0, length)]);
  });

  test(`NBD session (${kind}): mutations never break the server`, async (t) => {
    const seed = fuzzSeed();
    t.diagnostic(`SEED=${seed}`);
    const random = new SeededRandom(seed);
    for (let round = 0; round < fuzzRounds(500); round += 1) {
      const bytes = mutate(random, [whole]);
      const cut = random.below(bytes.length + 1);
      await converse([bytes.subarray(0, cut), bytes.subarray(cut)]);
    }
  });
}

test('NBD option data: what decodes is within its limits', () => {
  const info = [infoData('a', [1, 2, 3]), infoData('', []), infoData('long name'.repeat(50), [7])];
  fuzzDecoder('info', info, fuzzRounds(20_000), decodeInfoOption, ({ name, requests }) => {
    assert.ok(Buffer.byteLength(name) <= 3 * MAX_STRING_BYTES && requests.length <= 64);
  });
  const contexts = [contextData('a', ['base:allocation', 'x:']), contextData('', [])];
  fuzzDecoder('context', contexts, fuzzRounds(20_000), decodeContextOption, ({ queries }) => {
    assert.ok(queries.length <= MAX_QUERIES);
  });
});
