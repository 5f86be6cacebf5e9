import assert from 'node:assert/strict';
import { createHash, type Hash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { isPosternError } from '../../shared/errors.ts';
import type { Peer } from '../../shared/transport/address.ts';
import { maxWriteBytesOf } from '../../shared/transport/stream.ts';
import type { ConnectOptions, Stream } from '../../shared/transport/transport.ts';

/** One kind of transport, set up so that this process holds both ends. */
export interface TransportUnderTest {
  /** Opens a stream: the end that connected, and the end that was accepted. */
  open(options?: ConnectOptions): Promise<[Stream, Stream]>;
  /** What each end is to report of the other; `port` of vsock is not compared where it is absent here. */
  readonly peers: readonly [Partial<Peer>, Partial<Peer>];
  close(): Promise<void>;
}

/** A transport with addresses: all but the in-process pair. */
export interface AddressedTransport extends TransportUnderTest {
  /** Connects to the listener that `open` uses. */
  connect(options: ConnectOptions): Promise<Stream>;
  /** Connects where nobody listens. */
  connectNobody(): Promise<Stream>;
}

export interface TransportSizes {
  readonly bulkBytes: number;
  readonly streamCount: number;
}

/** Acceptance figures: 100 MiB each way, 1,000 streams at once. */
export const FULL_SIZES: TransportSizes = { bulkBytes: 100 * 1024 * 1024, streamCount: 1000 };

/** Kernel and stream buffers of both ends, and of a hypervisor between them: far below what is offered. */
const IN_FLIGHT_MAX_BYTES = 4 * 1024 * 1024;
const OFFERED_BYTES = 32 * 1024 * 1024;
const PIECE_BYTES = 64 * 1024;
/** How long a writer waits for room before it takes the reader for stalled; longer only makes the test slower. */
const STALL_MS = 300;
const LATE_REPLY_MS = 300;

/** Around the cap of 31 KiB, nothing, and much more than one write. */
const AWKWARD_SIZES = [1, 100_000, 0, 31 * 1024, 31 * 1024 + 1, 7, 1_000_000];

/** What every kind of transport must do, whatever carries it. */
export function streamConformance(
  name: string,
  make: () => Promise<TransportUnderTest>,
  sizes: TransportSizes = FULL_SIZES,
): void {
  describe(`transport: ${name}`, () => {
    const get = prepared(make);
    halfClose(get);
    destruction(get);
    flowControl(get);
    volume(get, sizes);
    peers(get);
  });
}

/** The same, and what has to do with addresses. */
export function transportConformance(
  name: string,
  make: () => Promise<AddressedTransport>,
  sizes: TransportSizes = FULL_SIZES,
): void {
  streamConformance(name, make, sizes);
  describe(`connecting: ${name}`, () => connecting(prepared(make)));
}

function prepared<T extends TransportUnderTest>(make: () => Promise<T>): () => T {
  let transport: T | undefined;
  before(async () => {
    transport = await make();
  });
  after(() => transport?.close());
  return () => {
    assert.ok(transport !== undefined);
    return transport;
  };
}

type Get = () => TransportUnderTest;

function halfClose(get: Get): void {
  for (const [who, first] of [
    ['connecting', 0],
    ['accepting', 1],
  ] as const) {
    test(`the ${who} side ends first, and the reply comes late`, async () => {
      const ends = await get().open();
      const [asker, answerer] = first === 0 ? ends : [ends[1], ends[0]];
      asker.end('question');
      assert.equal(await readAll(answerer), 'question');
      await sleep(LATE_REPLY_MS);
      answerer.write('late ');
      await sleep(LATE_REPLY_MS);
      answerer.end('answer');
      assert.equal(await readAll(asker), 'late answer');
      await Promise.all([closed(asker), closed(answerer)]);
    });
  }

  test('both sides end at once', async () => {
    const [left, right] = await get().open();
    left.end('from the left');
    right.end('from the right');
    assert.deepEqual(await Promise.all([readAll(left), readAll(right)]), ['from the right', 'from the left']);
    await Promise.all([closed(left), closed(right)]);
  });

  test('an end without a byte is an end', async () => {
    const [left, right] = await get().open();
    left.end();
    assert.equal(await readAll(right), '');
    right.end('still open');
    assert.equal(await readAll(left), 'still open');
  });
}

function destruction(get: Get): void {
  for (const index of [0, 1] as const) {
    test(`destroy of the ${index === 0 ? 'connecting' : 'accepted'} end closes the other`, async () => {
      const ends = await get().open();
      const [gone, left] = index === 0 ? ends : [ends[1], ends[0]];
      gone.on('error', () => undefined);
      gone.destroy();
      left.on('error', () => undefined).resume();
      // The reading side may see a plain end: then it is the writing that fails.
      left.on('end', () => void writeUntilClosed(left));
      await closed(left);
    });
  }

  test('destroy in the middle of a bulk transfer ends both sides', async () => {
    const [left, right] = await get().open();
    for (const end of [left, right]) end.on('error', () => undefined);
    const writing = writeUntilClosed(left);
    await once(right, 'data');
    right.destroy();
    await Promise.all([writing, closed(left), closed(right)]);
  });
}

function flowControl(get: Get): void {
  test('a stalled reader holds the writer back, and nothing is lost', async () => {
    const [writer, reader] = await get().open();
    const piece = randomBytes(PIECE_BYTES);
    const sent = createHash('sha256');
    let sentBytes = 0;
    for (let stalled = false; !stalled && sentBytes < OFFERED_BYTES; sentBytes += piece.length) {
      sent.update(piece);
      if (!writer.write(piece)) stalled = !(await drained(writer));
    }
    assert.ok(sentBytes <= IN_FLIGHT_MAX_BYTES, `${sentBytes} bytes are in flight`);
    assert.ok(reader.readableLength <= reader.readableHighWaterMark + PIECE_BYTES);
    writer.end();
    assert.equal(await digestOf(reader), sent.digest('hex'));
    reader.end();
    await closed(writer);
  });

  test('no write system call is larger than the transport bears', async () => {
    const [left, right] = await get().open();
    for (const [writer, reader] of [
      [left, right],
      [right, left],
    ] as const) {
      const capBytes = maxWriteBytesOf(writer.peer.kind);
      const sizes = spyOnWrites(writer);
      for (const size of AWKWARD_SIZES) writer.write(randomBytes(size));
      writer.end('é'.repeat(40_000));
      reader.resume();
      await once(reader, 'end');
      assert.ok(sizes.length > 0);
      for (const size of sizes) assert.ok(size <= capBytes, `a write of ${size} bytes`);
    }
  });

  test('large and small writes arrive in order, strings included', async () => {
    const [left, right] = await get().open();
    const pieces = AWKWARD_SIZES.map((size) => randomBytes(size));
    left.cork();
    for (const piece of pieces) left.write(piece);
    left.write('é'.repeat(40_000));
    left.uncork();
    left.end('c3bc', 'hex');
    const expected = Buffer.concat([...pieces, Buffer.from('é'.repeat(40_000)), Buffer.from('ü')]);
    assert.equal(await digestOf(right), createHash('sha256').update(expected).digest('hex'));
    right.end();
    left.resume();
    await closed(left);
  });
}

function volume(get: Get, sizes: TransportSizes): void {
  test(`${sizes.bulkBytes} bytes each way at once arrive unchanged`, async () => {
    const ends = await get().open();
    const hashes = ends.map(() => createHash('sha256'));
    const sending = ends.map((end, index) => sendBulk(end, sizes.bulkBytes, hashes[index] as Hash));
    const received = await Promise.all(ends.map(digestOf));
    await Promise.all(sending);
    assert.deepEqual(
      received.reverse(),
      hashes.map((hash) => hash.digest('hex')),
    );
  });

  test(`${sizes.streamCount} streams are open at once and each carries its own bytes`, async () => {
    const opened = await Promise.all(Array.from({ length: sizes.streamCount }, () => get().open()));
    const payloads = opened.map(([left]) => {
      const payload = randomBytes(1024);
      left.write(payload);
      return payload.toString('hex');
    });
    // Accepted in any order: each is asked for what its own connecting end wrote, by the echo.
    for (const [, right] of opened) right.pipe(right);
    for (const [left] of opened) left.end();
    const echoes = await Promise.all(opened.map(([left]) => left.toArray()));
    assert.deepEqual(
      echoes.map((echo) => Buffer.concat(echo).toString('hex')),
      payloads,
    );
  });
}

function peers(get: Get): void {
  test('each end reports its peer', async () => {
    const ends = await get().open();
    for (const [index, end] of ends.entries()) {
      assert.deepEqual({ ...end.peer, ...get().peers[index] }, end.peer);
      end.destroy();
    }
  });
}

function connecting(get: () => AddressedTransport): void {
  test('connecting where nobody listens is a coded error', async () => {
    const codes = ['ERR_TRANSPORT_REFUSED', 'ERR_TRANSPORT_UNREACHABLE'];
    await assert.rejects(
      get().connectNobody(),
      (error) => isPosternError(error) && codes.includes(error.code),
    );
  });

  test('a connect that was given up before it began is a coded error', async () => {
    const signal = AbortSignal.abort();
    await assert.rejects(get().connect({ signal }), (error) =>
      isPosternError(error, 'ERR_TRANSPORT_ABORTED'),
    );
  });

  test('connects that are given up on their way leave nothing open', async () => {
    const before = openDescriptors();
    const attempts = Array.from({ length: 20 }, () => givenUp(get()));
    for (const result of await Promise.allSettled(attempts)) {
      assert.ok(result.status === 'rejected' && isPosternError(result.reason, 'ERR_TRANSPORT_ABORTED'));
    }
    // The accepting side, in this same process, learns of it a moment later.
    while (openDescriptors() > before) await sleep(10);
    const [left, right] = await get().open();
    left.end('well');
    assert.equal(await readAll(right), 'well');
    right.destroy();
  });
}

/** Aborts in the same turn of the event loop: whatever does not end at once is on its way. */
function givenUp(transport: AddressedTransport): Promise<Stream> {
  const controller = new AbortController();
  const connection = transport.connect({ signal: controller.signal });
  controller.abort();
  return connection;
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Resolves at `close`, whether an error came before it or not. */
function closed(stream: Stream): Promise<unknown> {
  return stream.closed ? Promise.resolve() : new Promise((resolve) => stream.once('close', resolve));
}

async function readAll(stream: Stream): Promise<string> {
  const pieces: Buffer[] = [];
  stream.on('data', (piece: Buffer) => pieces.push(piece));
  await once(stream, 'end');
  return Buffer.concat(pieces).toString();
}

async function digestOf(stream: Stream): Promise<string> {
  const hash = createHash('sha256');
  stream.on('data', (piece: Buffer) => hash.update(piece));
  await once(stream, 'end');
  return hash.digest('hex');
}

async function sendBulk(stream: Stream, bytes: number, hash: Hash): Promise<void> {
  const source = randomBytes(1024 * 1024);
  for (let sent = 0; sent < bytes; sent += PIECE_BYTES) {
    // A different slice each time, so that lost, doubled or swapped pieces change the hash.
    const start = (sent / PIECE_BYTES) % (source.length - PIECE_BYTES);
    const piece = source.subarray(start, start + Math.min(PIECE_BYTES, bytes - sent));
    hash.update(piece);
    if (!stream.write(piece)) await once(stream, 'drain');
  }
  stream.end();
}

/** False when the writer found no room for STALL_MS: its reader has stalled. */
async function drained(stream: Stream): Promise<boolean> {
  const giveUp = AbortSignal.timeout(STALL_MS);
  return once(stream, 'drain', { signal: giveUp }).then(
    () => true,
    () => false,
  );
}

async function writeUntilClosed(stream: Stream): Promise<void> {
  const piece = Buffer.alloc(PIECE_BYTES);
  while (!stream.destroyed && stream.writable) {
    const room = stream.write(piece);
    await Promise.race([closed(stream), room ? sleep(1) : once(stream, 'drain').catch(() => undefined)]);
  }
}

/** Records the size of every write request that reaches the handle; a gathered write counts whole. */
function spyOnWrites(stream: Stream): number[] {
  const sizes: number[] = [];
  const handle = Reflect.get(stream, '_handle') as Record<string, (...args: unknown[]) => number>;
  for (const method of ['writeBuffer', 'writev', 'writeUtf8String', 'writeLatin1String']) {
    const original = handle[method]?.bind(handle);
    handle[method] = (request: unknown, data: unknown, ...rest: unknown[]) => {
      sizes.push(sizeOf(data));
      return original?.(request, data, ...rest) ?? -1;
    };
  }
  return sizes;
}

function sizeOf(data: unknown): number {
  if (Array.isArray(data)) return data.reduce((total: number, piece) => total + sizeOf(piece), 0);
  return Buffer.byteLength(data as Buffer | string);
}
