import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { isPosternError } from '../../shared/errors.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import { fuzzRounds, fuzzSeed, mutate, SeededRandom } from './fuzz.ts';

const ROUNDS = fuzzRounds(300);
/** Of hybrid.md. */
const ANSWER_MAX_BYTES = 32;
const CORPUS = ['OK 1024\n', 'OK 4294967295\npayload', 'OK 0\n\n', 'NO\n', 'OK 12', ''].map((text) =>
  Buffer.from(text),
);

const folder = mkdtempSync(join(tmpdir(), 'postern-fuzz-hybrid-'));
const address = { kind: 'hybrid', path: join(folder, 'v.sock'), port: 5000 } as const;
let answer: (socket: Socket) => void = (socket) => socket.destroy();
const server = createServer({ allowHalfOpen: true }, (socket) => {
  socket.on('error', () => socket.destroy()).on('end', () => socket.destroy());
  socket.once('data', () => answer(socket));
});

before(async () => {
  server.listen(address.path);
  await once(server, 'listening');
});
after(() => {
  server.close();
  rmSync(folder, { recursive: true });
});

/** The whole answer at once, as hybrid.md writes it down: the payload behind the line, or why there is none. */
function naive(bytes: Buffer): string {
  const end = bytes.indexOf('\n');
  if (end === -1) return bytes.length < ANSWER_MAX_BYTES ? 'ERR_TRANSPORT_REFUSED' : 'ERR_TRANSPORT_FAILED';
  const known = end < ANSWER_MAX_BYTES && /^OK [0-9]{1,10}$/.test(bytes.toString('latin1', 0, end));
  return known ? `payload ${bytes.toString('hex', end + 1)}` : 'ERR_TRANSPORT_FAILED';
}

async function real(): Promise<string> {
  try {
    const stream = await connectStream(address);
    const pieces: Buffer[] = await stream.toArray();
    stream.destroy();
    return `payload ${Buffer.concat(pieces).toString('hex')}`;
  } catch (error) {
    if (isPosternError(error)) return error.code;
    throw error;
  }
}

test('every truncation of every answer, at once and a byte at a time', async () => {
  for (const whole of CORPUS) {
    for (let length = 0; length <= whole.length; length += 1) {
      const bytes = whole.subarray(0, length);
      answer = (socket) => socket.end(bytes);
      assert.equal(await real(), naive(bytes), JSON.stringify(bytes.toString()));
    }
    answer = (socket) => void aByteAtATime(socket, whole);
    assert.equal(await real(), naive(whole));
  }
});

test('mutated answers end as the naive twin says', async () => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  for (let round = 0; round < ROUNDS; round += 1) {
    const bytes = mutate(random, CORPUS);
    answer = (socket) => socket.end(bytes);
    assert.equal(
      await real(),
      naive(bytes),
      `SEED=${seed} round ${round}: ${JSON.stringify(bytes.toString('latin1'))}`,
    );
  }
});

async function aByteAtATime(socket: Socket, bytes: Buffer): Promise<void> {
  for (const byte of bytes) {
    socket.write(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  socket.end();
}
