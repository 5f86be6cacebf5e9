import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { isPosternError } from '../../shared/errors.ts';
import {
  type ControlFrame,
  decodeHello,
  encodeFrame,
  encodeHello,
  FRAME_MAX_BYTES,
  FrameDecoder,
  negotiateVersion,
} from '../../shared/wire/control.ts';
import {
  BODY_MAX_BYTES,
  decodeStreamHeader,
  encodeStreamHeader,
  HEADER_BYTES,
  proofHolds,
  type StreamKind,
} from '../../shared/wire/header.ts';
import {
  decodeInboundOpen,
  decodeTcpOpen,
  encodeInboundOpen,
  encodeTcpOpen,
  type InboundOpen,
  type TcpOpen,
} from '../../shared/wire/open.ts';
import { decodeReply, encodeReply, errnoOf, REPLY_STATUSES, statusOfError } from '../../shared/wire/reply.ts';
import { vectorsOf } from './vectors.ts';

const KEY = Buffer.alloc(32, 7);
const hex = (text: unknown): Buffer => Buffer.from(text as string, 'hex');
const malformed = { code: 'ERR_WIRE_MALFORMED' };

describe('stream header', () => {
  for (const vector of vectorsOf('header.md')) {
    const kind = vector['kind'] as StreamKind;
    test(`vector ${kind}`, () => {
      const bytes = encodeStreamHeader(kind, vector['flowId'] as number, hex(vector['body']), KEY);
      assert.equal(bytes.toString('hex'), vector['bytes']);
      const header = decodeStreamHeader(bytes.subarray(0, HEADER_BYTES));
      assert.deepEqual(header, { kind, flowId: vector['flowId'], bodyLength: hex(vector['body']).length });
      assert.ok(proofHolds(KEY, bytes.subarray(0, HEADER_BYTES), bytes.subarray(HEADER_BYTES)));
    });
  }

  test('no flipped bit leaves a header that is proven', () => {
    const bytes = encodeStreamHeader('tcp', 2, hex('01bb010004c0000207'), KEY);
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const flipped = Buffer.from(bytes);
      flipped.writeUInt8(flipped.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      assert.ok(
        !proofHolds(KEY, flipped.subarray(0, HEADER_BYTES), flipped.subarray(HEADER_BYTES)),
        `bit ${bit}`,
      );
    }
  });

  test('another key proves nothing', () => {
    const bytes = encodeStreamHeader('tcp', 2, Buffer.alloc(0), KEY);
    assert.ok(!proofHolds(Buffer.alloc(32, 8), bytes, Buffer.alloc(0)));
  });

  test('refuses what is not a header of this version, each with its code', () => {
    const good = encodeStreamHeader('tcp', 2, Buffer.alloc(0), KEY);
    const change = (offset: number, value: number): Buffer => {
      const bytes = Buffer.from(good);
      bytes.writeUInt8(value, offset);
      return bytes;
    };
    assert.throws(() => decodeStreamHeader(change(0, 0x47)), malformed);
    assert.throws(() => decodeStreamHeader(change(4, 2)), { code: 'ERR_WIRE_VERSION' });
    assert.throws(() => decodeStreamHeader(change(5, 99)), malformed);
    assert.throws(() => decodeStreamHeader(change(6, 0xff)), { code: 'ERR_WIRE_TOO_LARGE' });
    assert.throws(() => decodeStreamHeader(change(8, 0xff)), malformed);
    assert.throws(() => decodeStreamHeader(good.subarray(0, HEADER_BYTES - 1)), malformed);
  });

  test('takes a body of the limit and none over it', () => {
    assert.doesNotThrow(() => encodeStreamHeader('tcp', 2, Buffer.alloc(BODY_MAX_BYTES), KEY));
    assert.throws(() => encodeStreamHeader('tcp', 2, Buffer.alloc(BODY_MAX_BYTES + 1), KEY), RangeError);
  });
});

describe('OPEN', () => {
  for (const vector of vectorsOf('open.md')) {
    test(`vector ${vector['bytes']}`, () => {
      const bytes = hex(vector['bytes']);
      if (vector['tcp'] !== undefined) {
        assert.equal(encodeTcpOpen(vector['tcp'] as TcpOpen).toString('hex'), vector['bytes']);
        assert.deepEqual(decodeTcpOpen(bytes), vector['tcp']);
      } else {
        assert.equal(encodeInboundOpen(vector['inbound'] as InboundOpen).toString('hex'), vector['bytes']);
        assert.deepEqual(decodeInboundOpen(bytes), vector['inbound']);
      }
    });

    test(`every truncation and extension of ${vector['bytes']} is malformed`, () => {
      const bytes = hex(vector['bytes']);
      const decode = vector['tcp'] === undefined ? decodeInboundOpen : decodeTcpOpen;
      for (let length = 0; length < bytes.length; length += 1) {
        assert.throws(() => decode(bytes.subarray(0, length)), malformed, `${length} bytes`);
      }
      assert.throws(() => decode(Buffer.concat([bytes, Buffer.alloc(1)])), malformed);
    });
  }

  test('refuses port 0, no address and too many', () => {
    assert.throws(() => decodeTcpOpen(hex('0000010004c0000207')), malformed);
    assert.throws(() => decodeTcpOpen(hex('01bb0000')), malformed);
    assert.throws(() => decodeTcpOpen(Buffer.concat([hex('01bb1100'), Buffer.alloc(17 * 5, 4)])), malformed);
    assert.throws(() => encodeTcpOpen({ port: 1, addresses: [] }), RangeError);
    assert.throws(() => encodeTcpOpen({ port: 1, addresses: ['no address'] }), RangeError);
  });
});

describe('reply', () => {
  const document = readFileSync(new URL('../../shared/wire/reply.md', import.meta.url), 'utf8');
  for (const status of REPLY_STATUSES) {
    test(`${status} goes there and back, and is as documented`, () => {
      const bytes = encodeReply(status, status === 'ok' ? 3 : 0);
      assert.deepEqual(decodeReply(bytes), { status, addressIndex: status === 'ok' ? 3 : 0 });
      const row = new RegExp(`^\\| ${status} *\\| ${bytes.readUInt8(1)} *\\| *${errnoOf(status)} *\\|`, 'm');
      assert.match(document, row);
    });
  }

  test('no other four bytes are a reply', () => {
    const known = new Set(REPLY_STATUSES.map((status) => encodeReply(status).readUInt8(1)));
    for (let value = 0; value < 256; value += 1) {
      if (!known.has(value)) assert.throws(() => decodeReply(Buffer.from([0x52, value, 0, 0])), malformed);
    }
    for (const bytes of ['', '52', '520000', '5200000000', '53000000', '52000001']) {
      assert.throws(() => decodeReply(hex(bytes)), malformed, bytes);
    }
  });

  test('a status and its error code name each other', () => {
    assert.equal(statusOfError('ERR_FLOW_LIMIT'), 'limit');
    assert.equal(statusOfError('ERR_WIRE_TOO_LARGE'), 'malformed');
    assert.equal(statusOfError('ERR_CONFIG_INVALID'), undefined);
  });
});

describe('control', () => {
  const frames = vectorsOf('control.md').map((vector) => ({
    frame: vector['frame'] as ControlFrame,
    bytes: hex(vector['bytes']),
  }));

  for (const { frame, bytes } of frames) {
    test(`vector ${frame.type}`, () => {
      assert.equal(encodeFrame(frame).toString('hex'), bytes.toString('hex'));
      assert.deepEqual(new FrameDecoder().push(bytes), [frame]);
    });
  }

  test('frames come out the same in whatever pieces they come', () => {
    const all = Buffer.concat(frames.map(({ bytes }) => bytes));
    const expected = frames.map(({ frame }) => frame);
    for (let pieceLength = 1; pieceLength <= all.length; pieceLength += 1) {
      const decoder = new FrameDecoder();
      const got: ControlFrame[] = [];
      for (let offset = 0; offset < all.length; offset += pieceLength) {
        got.push(...decoder.push(all.subarray(offset, offset + pieceLength)));
      }
      assert.deepEqual(got, expected, `pieces of ${pieceLength}`);
    }
  });

  test('skips unknown types up to the limit, and refuses a longer frame before it has come', () => {
    const unknown = Buffer.alloc(4 + FRAME_MAX_BYTES, 0);
    unknown.writeUInt8(200, 0);
    unknown.writeUInt16BE(FRAME_MAX_BYTES, 2);
    const ping = encodeFrame({ type: 'ping', token: 1 });
    assert.deepEqual(new FrameDecoder().push(Buffer.concat([unknown, ping])), [{ type: 'ping', token: 1 }]);
    const long = Buffer.from([200, 0, (FRAME_MAX_BYTES + 1) >> 8, (FRAME_MAX_BYTES + 1) & 0xff]);
    assert.throws(() => new FrameDecoder().push(long), { code: 'ERR_WIRE_TOO_LARGE' });
  });

  test('refuses a known type of another length, and numbers over 2^53', () => {
    for (const bytes of ['02000007000000000000ff', '05000000', '0100000101', '0200000800ffffffffffffff']) {
      assert.throws(
        () => new FrameDecoder().push(hex(bytes)),
        (error) => isPosternError(error),
        bytes,
      );
    }
  });

  test('HELLO goes there and back, and no truncation of it is one', () => {
    const hello = { minVersion: 1, maxVersion: 1, capabilities: 3, key: KEY, agent: 'postern/0.1' };
    const bytes = encodeHello(hello);
    assert.deepEqual(decodeHello(bytes), hello);
    for (let length = 0; length < bytes.length; length += 1) {
      assert.throws(() => decodeHello(bytes.subarray(0, length)), malformed, `${length} bytes`);
    }
    const bell = Buffer.from(bytes);
    bell.writeUInt8(7, bytes.length - 1);
    assert.throws(() => decodeHello(bell), malformed);
  });

  test('the agent decoded from a HELLO is a copy, not a view of the receive buffer', () => {
    const bytes = encodeHello({ minVersion: 1, maxVersion: 1, capabilities: 0, key: KEY, agent: '' });
    const { key } = decodeHello(bytes);
    bytes.fill(0);
    assert.deepEqual(key, KEY);
  });

  test('versions: the highest common one, else an error that names both ranges', () => {
    assert.equal(negotiateVersion({ minVersion: 1, maxVersion: 9 }), 1);
    assert.throws(() => negotiateVersion({ minVersion: 2, maxVersion: 9 }), {
      code: 'ERR_WIRE_VERSION',
      message: 'peer speaks 2 to 9, this side 1 to 1',
    });
    assert.throws(() => negotiateVersion({ minVersion: 0, maxVersion: 0 }), { code: 'ERR_WIRE_VERSION' });
  });
});
