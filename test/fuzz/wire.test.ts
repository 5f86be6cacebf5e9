import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type ControlFrame,
  decodeHello,
  encodeFrame,
  encodeHello,
  FRAME_MAX_BYTES,
  FrameDecoder,
} from '../../shared/wire/control.ts';
import {
  BODY_MAX_BYTES,
  decodeStreamHeader,
  encodeStreamHeader,
  HEADER_BYTES,
} from '../../shared/wire/header.ts';
import {
  decodeInboundOpen,
  decodeTcpOpen,
  encodeInboundOpen,
  encodeTcpOpen,
} from '../../shared/wire/open.ts';
import { decodeReply, encodeReply, REPLY_STATUSES } from '../../shared/wire/reply.ts';
import { readNaively, readStreamed } from '../wire/datagram-naive.ts';
import { vectorsOf } from '../wire/vectors.ts';
import { fuzzDecoder, fuzzRounds } from './fuzz.ts';

const ROUNDS = fuzzRounds(20_000);
const KEY = Buffer.alloc(32, 7);
const corpusOf = (document: string): Buffer[] =>
  vectorsOf(document).map((vector) => Buffer.from(vector['bytes'] as string, 'hex'));

test('stream header: what decodes encodes to the same bytes', () => {
  fuzzDecoder('header', corpusOf('header.md'), ROUNDS, decodeStreamHeader, (header, bytes) => {
    assert.ok(header.bodyLength <= BODY_MAX_BYTES);
    const again = encodeStreamHeader(header.kind, header.flowId, Buffer.alloc(header.bodyLength), KEY);
    assert.deepEqual(again.subarray(0, 16), bytes.subarray(0, 16));
    assert.ok(bytes.length >= HEADER_BYTES);
  });
});

const openCorpus = corpusOf('open.md');

test('tcp OPEN: what decodes encodes to the same bytes', () => {
  fuzzDecoder('tcp', openCorpus, ROUNDS, decodeTcpOpen, (open, bytes) => {
    assert.deepEqual(encodeTcpOpen(open), bytes);
  });
});

test('inbound OPEN: what decodes encodes to the same bytes', () => {
  fuzzDecoder('inbound', openCorpus, ROUNDS, decodeInboundOpen, (open, bytes) => {
    assert.deepEqual(encodeInboundOpen(open), bytes);
  });
});

test('reply: what decodes encodes to the same bytes', () => {
  const corpus = REPLY_STATUSES.map((status) => encodeReply(status, 1));
  fuzzDecoder('reply', corpus, ROUNDS, decodeReply, (reply, bytes) => {
    assert.deepEqual(encodeReply(reply.status, reply.addressIndex), bytes);
  });
});

test('HELLO: what decodes encodes to the same bytes', () => {
  const corpus = [
    encodeHello({ minVersion: 1, maxVersion: 1, capabilities: 3, key: KEY, agent: 'postern/0.1' }),
  ];
  fuzzDecoder('hello', corpus, ROUNDS, decodeHello, (hello, bytes) => {
    assert.deepEqual(encodeHello(hello), bytes);
  });
});

test('control frames: the same frames or the same error, in whatever pieces they come', () => {
  fuzzDecoder('frames', corpusOf('control.md'), ROUNDS, (bytes, random) => {
    const whole = framesOf([bytes]);
    const pieces: Buffer[] = [];
    for (let offset = 0; offset < bytes.length; ) {
      const end = offset + 1 + random.below(FRAME_MAX_BYTES / 8);
      pieces.push(bytes.subarray(offset, end));
      offset = end;
    }
    assert.deepEqual(framesOf(pieces), whole);
  });
});

test('udp frames: what a naive reader reads, whole, in pieces and byte by byte', () => {
  fuzzDecoder('udp', corpusOf('datagram.md'), ROUNDS, (bytes, random) => {
    const naive = readNaively(bytes);
    const single = Array.from({ length: bytes.length }, (_, at) => bytes.subarray(at, at + 1));
    assert.deepEqual(readStreamed(single), naive);
    const pieces: Buffer[] = [];
    for (let offset = 0; offset < bytes.length; ) {
      const end = offset + 1 + random.below(64);
      pieces.push(bytes.subarray(offset, end));
      offset = end;
    }
    for (const way of [pieces, [bytes]]) {
      const streamed = readStreamed(way);
      assert.equal(streamed.failed, naive.failed);
      // Frames before a bad one in the same piece are lost with it: the association ends all the same.
      const expected = naive.failed ? naive.frames.slice(0, streamed.frames.length) : naive.frames;
      assert.deepEqual(streamed.frames, expected);
    }
  });
});

function framesOf(pieces: readonly Buffer[]): (ControlFrame | string)[] {
  const decoder = new FrameDecoder();
  const frames: (ControlFrame | string)[] = [];
  for (const piece of pieces) {
    try {
      frames.push(...decoder.push(piece));
    } catch (error) {
      // Frames before a bad one in the same piece are lost with it: the session ends all the same.
      return [(error as { code: string }).code];
    }
  }
  return frames.map((frame) => (typeof frame === 'string' ? frame : encodeFrame(frame).toString('hex')));
}
