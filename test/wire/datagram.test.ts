import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DATAGRAM_FRAME_MAX_BYTES,
  DATAGRAM_MAX_BYTES,
  encodeClose,
  encodeDatagram,
  encodeUndelivered,
  type UdpFrame,
  UdpFrameDecoder,
} from '../../shared/wire/datagram.ts';
import type { Endpoint } from '../../shared/wire/endpoint.ts';
import { REPLY_STATUSES, type ReplyStatus } from '../../shared/wire/reply.ts';
import { readNaively, readStreamed } from './datagram-naive.ts';
import { vectorsOf } from './vectors.ts';

const hex = (text: unknown): Buffer => Buffer.from(text as string, 'hex');
const REMOTE: Endpoint = { address: '192.0.2.53', port: 53 };
const malformed = { code: 'ERR_WIRE_MALFORMED' };

interface Vector {
  readonly frame: UdpFrame;
  readonly encoded: Buffer;
  readonly bytes: Buffer;
}

function vectors(): Vector[] {
  return vectorsOf('datagram.md').map((vector) => {
    const [type] = Object.keys(vector) as [UdpFrame['type']];
    const fields = vector[type] as { remote: Endpoint; payload: string; status: ReplyStatus };
    const { remote, status } = fields;
    const bytes = hex(vector['bytes']);
    if (type === 'datagram') {
      const payload = hex(fields.payload);
      return { frame: { type, remote, payload }, encoded: encodeDatagram(remote, payload), bytes };
    }
    if (type === 'close') return { frame: { type, status }, encoded: encodeClose(status), bytes };
    return { frame: { type, remote, status }, encoded: encodeUndelivered(remote, status), bytes };
  });
}

test('the vectors go both ways', () => {
  for (const { frame, encoded, bytes } of vectors()) {
    assert.deepEqual(encoded, bytes);
    assert.deepEqual(new UdpFrameDecoder().push(bytes), [frame]);
  }
  assert.deepEqual(new Set(vectors().map(({ frame }) => frame.type)).size, 3);
});

test('frames come out the same in whatever pieces they come, and as a naive reader reads them', () => {
  const all = Buffer.concat(vectors().map(({ bytes }) => bytes));
  const expected = readNaively(all);
  assert.equal(expected.frames.length, vectors().length);
  for (let pieceLength = 1; pieceLength <= all.length; pieceLength += 1) {
    const pieces: Buffer[] = [];
    for (let offset = 0; offset < all.length; offset += pieceLength)
      pieces.push(all.subarray(offset, offset + pieceLength));
    assert.deepEqual(readStreamed(pieces), expected, `pieces of ${pieceLength}`);
  }
});

test('a truncation is no frame, and no error until more comes', () => {
  for (const { bytes } of vectors()) {
    for (let length = 0; length < bytes.length; length += 1)
      assert.deepEqual(new UdpFrameDecoder().push(bytes.subarray(0, length)), []);
    // One byte less announced than there should be: the frame itself is cut short.
    const cut = Buffer.from(bytes.subarray(0, -1));
    cut.writeUInt16BE(cut.length - 4, 2);
    assert.deepEqual(readStreamed([cut]), readNaively(cut));
  }
});

test('the largest datagram fits, one byte more does not, and a longer frame is refused before it has come', () => {
  const largest = encodeDatagram({ address: '2001:db8::1', port: 9 }, Buffer.alloc(DATAGRAM_MAX_BYTES, 7));
  assert.equal(largest.length, 4 + DATAGRAM_FRAME_MAX_BYTES);
  const [frame] = new UdpFrameDecoder().push(largest);
  assert.ok(frame?.type === 'datagram' && frame.payload.length === DATAGRAM_MAX_BYTES);
  assert.throws(() => encodeDatagram(REMOTE, Buffer.alloc(DATAGRAM_MAX_BYTES + 1)), RangeError);
  const over = Buffer.concat([hex('01000000'), hex('04c00002350035'), Buffer.alloc(DATAGRAM_MAX_BYTES + 1)]);
  over.writeUInt16BE(over.length - 4, 2);
  assert.throws(() => new UdpFrameDecoder().push(over), malformed);
  assert.throws(() => new UdpFrameDecoder().push(hex('0100fff7')), { code: 'ERR_WIRE_TOO_LARGE' });
});

test('skips unknown types, refuses a zero that is none, port 0, ok as a reason and bytes behind the end', () => {
  const unknown = Buffer.concat([hex('c8000003'), Buffer.alloc(3)]);
  const empty = hex('c9000000');
  const close = encodeClose('timeout');
  assert.deepEqual(new UdpFrameDecoder().push(Buffer.concat([unknown, empty, close])), [
    { type: 'close', status: 'timeout' },
  ]);
  for (const bad of [
    '0101000c04c000023500350000000000',
    '0100000704c00002350000',
    '0100000705c00002350035',
    '01000000',
    '0200000704c00002350035',
    '0200000b04c0000235003552000000',
    '0200000c04c000023500355201000000',
    '0300000452000000',
    '0300000452040100',
    '030000055204000000',
    '03000000',
  ])
    assert.throws(() => new UdpFrameDecoder().push(hex(bad)), malformed, bad);
});

test('reads no further than it is asked to, and tells of what it skips', () => {
  const datagram = encodeDatagram(REMOTE, Buffer.alloc(0));
  const frames = new UdpFrameDecoder().read(Buffer.concat([datagram, hex('c9000000'), hex('ffffffff')]));
  assert.deepEqual(frames.next().value, { type: 'datagram', remote: REMOTE, payload: Buffer.alloc(0) });
  assert.deepEqual(frames.next(), { done: false, value: undefined });
  assert.throws(() => frames.next(), malformed);
});

test('every reason goes there and back', () => {
  for (const status of REPLY_STATUSES) {
    if (status === 'ok') continue;
    assert.deepEqual(new UdpFrameDecoder().push(encodeUndelivered(REMOTE, status)), [
      { type: 'undelivered', remote: REMOTE, status },
    ]);
  }
});
