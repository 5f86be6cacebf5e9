import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ObjectConnection } from '../../guest/objects/connection.ts';
import { ObjectService } from '../../parent/objects/service.ts';
import { isPosternError } from '../../shared/errors.ts';
import { createMemoryStore } from '../../shared/objects/memory.ts';
import { streamPair } from '../../shared/transport/pair.ts';
import { encodeObjectFrame } from '../../shared/wire/object.ts';
import { decodePage, encodePage } from '../../shared/wire/object-page.ts';
import { readNaively, readStreamed } from '../wire/object-naive.ts';
import { vectorsOf } from '../wire/vectors.ts';
import { fuzzDecoder, fuzzRounds, fuzzSeed, mutate, SeededRandom } from './fuzz.ts';

const VECTORS = vectorsOf('object.md').filter((vector) => !('page' in vector));
const CORPUS = [
  ...VECTORS.map(({ bytes }) => Buffer.from(bytes as string, 'hex')),
  Buffer.concat(VECTORS.map(({ bytes }) => Buffer.from(bytes as string, 'hex'))),
];
const HELLO = encodeObjectFrame({ type: 'hello', minVersion: 1, maxVersion: 1 });
const WELCOME = encodeObjectFrame({ type: 'welcome', version: 1, maxRequests: 64 });

test('the object stream’s decoder agrees with a naive reader on any bytes in any pieces', () => {
  fuzzDecoder('object stream', CORPUS, fuzzRounds(20_000), (bytes, random) => {
    const pieces: Buffer[] = [];
    for (let at = 0; at < bytes.length; ) {
      const end = at + 1 + random.below(40);
      pieces.push(bytes.subarray(at, end));
      at = end;
    }
    assert.deepEqual(readStreamed(pieces), readNaively(bytes));
  });
});

test('a page’s decoder takes any bytes', () => {
  const corpus = [
    encodePage([]),
    encodePage([
      { key: 'v/a', sizeBytes: 3 },
      { key: 'v/bc', sizeBytes: 4 },
    ]),
  ];
  fuzzDecoder('object page', corpus, fuzzRounds(20_000), (bytes, random) =>
    decodePage(bytes, random.below(4)),
  );
});

test('the parent’s service survives any client, and keeps no memory of it', async () => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  const service = new ObjectService({
    store: createMemoryStore(),
    helloTimeoutMs: 1000,
    bodyTimeoutMs: 1000,
  });
  for (let round = 0; round < fuzzRounds(300); round += 1) {
    const [client, served] = streamPair();
    const done = service.serve(served);
    client.on('error', () => {}).resume();
    const input = mutate(random, CORPUS);
    client.end(round % 10 === 0 ? input : Buffer.concat([HELLO, input]));
    await done;
    assert.equal(service.usedBytes, 0, `SEED=${seed} round ${round}`);
    client.destroy();
  }
  assert.equal(service.streamCount, 0);
});

test('the guest’s client survives any parent: every call ends, with a coded error or an answer', async () => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  for (let round = 0; round < fuzzRounds(300); round += 1) {
    const [guest, parent] = streamPair();
    parent.on('error', () => {}).resume();
    parent.write(WELCOME);
    const connection = await ObjectConnection.greet(guest, 5000);
    const { signal } = new AbortController();
    const calls = [
      connection.call({ op: 'put', key: 'v/a', sizeBytes: 3 }, Buffer.from('abc'), signal),
      connection.call({ op: 'get', key: 'v/a', range: { offset: 1, length: 2 } }, Buffer.alloc(0), signal),
      connection.call({ op: 'list', prefix: 'v/', after: 'v/a', limit: 10 }, Buffer.alloc(0), signal),
      connection.call({ op: 'head', key: 'v' }, Buffer.alloc(0), signal),
      connection.call({ op: 'delete', key: 'v' }, Buffer.alloc(0), signal),
      connection.call({ op: 'put', key: 'v', sizeBytes: 100_000 }, Buffer.alloc(100_000), signal),
    ];
    parent.end(mutate(random, CORPUS));
    for (const outcome of await Promise.allSettled(calls)) {
      const coded = outcome.status === 'fulfilled' || isPosternError(outcome.reason);
      assert.ok(coded, `SEED=${seed} round ${round}: ${JSON.stringify(outcome)}`);
    }
    connection.close();
    parent.destroy();
  }
});
