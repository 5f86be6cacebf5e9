import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { describe, test } from 'node:test';
import {
  DATA_MAX_BYTES,
  encodeDataHeader,
  encodeObjectFrame,
  OBJECT_PAYLOAD_BYTES,
  type ObjectFrame,
} from '../../shared/wire/object.ts';
import { decodePage, encodePage, PAGE_MAX_BYTES } from '../../shared/wire/object-page.ts';
import { ObjectWriter } from '../../shared/wire/object-writer.ts';
import { readNaively, readStreamed } from './object-naive.ts';
import { vectorsOf } from './vectors.ts';

const VECTORS = vectorsOf('object.md');
const hex = (text: unknown): Buffer => Buffer.from(text as string, 'hex');
const malformed = { code: 'ERR_WIRE_MALFORMED' };

/** One stream of every vector. */
const STREAM = Buffer.concat(VECTORS.filter((vector) => !('page' in vector)).map(({ bytes }) => hex(bytes)));

describe('object stream', () => {
  for (const [index, { frame, data, page, bytes }] of VECTORS.entries()) {
    test(`vector ${index}: ${JSON.stringify(frame ?? data ?? page)}`, () => {
      if (frame !== undefined) {
        assert.equal(encodeObjectFrame(frame as ObjectFrame).toString('hex'), bytes);
        assert.deepEqual(readStreamed([hex(bytes)]), { frames: [frame], failed: false });
      } else if (data !== undefined) {
        const { requestId, bytes: payload } = data as { requestId: number; bytes: string };
        const header = encodeDataHeader(requestId, payload.length / 2).toString('hex');
        assert.equal(header + payload, bytes);
        assert.deepEqual(readStreamed([hex(bytes)]).frames, [{ type: 'data', requestId, bytes: payload }]);
      } else {
        assert.equal(encodePage(page as { key: string; sizeBytes: number }[]).toString('hex'), bytes);
        assert.deepEqual(decodePage(hex(bytes), 1), page);
      }
    });
  }

  test('whole, a byte at a time, and cut anywhere, it reads the same as a naive reader', () => {
    const whole = readNaively(STREAM);
    assert.equal(whole.frames.length, VECTORS.length - 1);
    assert.deepEqual(readStreamed([STREAM]), whole);
    assert.deepEqual(readStreamed([...STREAM].map((byte) => Buffer.from([byte]))), whole);
    for (let cut = 0; cut <= STREAM.length; cut += 1) {
      const [head, tail] = [STREAM.subarray(0, cut), STREAM.subarray(cut)];
      assert.deepEqual(readStreamed([head]), readNaively(head), `cut at ${cut}`);
      assert.deepEqual(readStreamed([head, tail]), whole, `cut at ${cut}`);
    }
  });

  test('a length over its type’s limit fails before a byte of it is read', () => {
    for (const [index, [, most]] of Object.values(OBJECT_PAYLOAD_BYTES).entries()) {
      const header = Buffer.alloc(12);
      header.writeUInt8(index + 1, 0);
      header.writeUInt32BE(1, 4);
      header.writeUInt32BE(most + 1, 8);
      assert.deepEqual(readStreamed([header]), { frames: [], failed: true });
    }
  });

  test('a page is its entries, all of them and nothing else', () => {
    const objects = Array.from({ length: 1000 }, (_, index) => ({
      key: `${index}`.padEnd(512, 'x'),
      sizeBytes: index,
    }));
    const body = encodePage(objects);
    assert.equal(body.length, PAGE_MAX_BYTES);
    assert.deepEqual(decodePage(body, 1000), objects);
    assert.throws(() => decodePage(body, 999), malformed);
    assert.throws(() => decodePage(body, 1001), malformed);
    for (let cut = 0; cut < 40; cut += 1)
      assert.throws(
        () => decodePage(encodePage([{ key: 'a'.repeat(34), sizeBytes: 1 }]).subarray(0, cut), 1),
        malformed,
      );
    assert.throws(() => decodePage(hex('000301ffffff762f62'), 1), malformed);
  });
});

describe('object writer', () => {
  /** Keeps what is written, and takes the next only when told. */
  class SlowStream extends Writable {
    readonly written: Buffer[] = [];
    release: (() => void) | undefined;
    override _write(piece: Buffer, _: BufferEncoding, done: () => void): void {
      this.written.push(piece);
      this.release = done;
    }
  }

  test('a small frame and a small body wait for one DATA frame of a large body', async () => {
    const stream = new SlowStream({ highWaterMark: 1024 });
    const writer = new ObjectWriter(stream);
    const large = writer.sendBody(1, Buffer.alloc(4 * DATA_MAX_BYTES, 1));
    const frame = writer.send({ type: 'reply', requestId: 2, reply: { status: 'absent' } });
    const small = writer.sendBody(3, Buffer.alloc(100, 3));
    while (stream.release !== undefined) {
      const { release } = stream;
      stream.release = undefined;
      release();
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.deepEqual(await Promise.all([large, frame, small]), ['sent', undefined, 'sent']);
    const { frames } = readStreamed(stream.written);
    const order = frames.map((entry) => `${entry.type} ${'requestId' in entry ? entry.requestId : ''}`);
    assert.deepEqual(order, ['data 1', 'reply 2', 'data 1', 'data 3', 'data 1']);
  });

  test('a dropped body stops between frames, and a closed stream drops all', async () => {
    const stream = new SlowStream({ highWaterMark: 1024 });
    const writer = new ObjectWriter(stream);
    const first = writer.sendBody(1, Buffer.alloc(4 * DATA_MAX_BYTES));
    writer.dropBody(1);
    assert.equal(await first, 'dropped');
    const second = writer.sendBody(2, Buffer.alloc(10));
    stream.destroy();
    assert.equal(await second, 'dropped');
    assert.equal(await writer.sendBody(3, Buffer.alloc(10)), 'dropped');
    await writer.send({ type: 'cancel', requestId: 1 });
  });
});
