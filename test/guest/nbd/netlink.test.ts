import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { kernelBlockBytes } from '../../../guest/nbd/attach.ts';
import {
  attribute,
  decodeAnswer,
  encodeGeneric,
  nested,
  u32Attribute,
  u64Attribute,
} from '../../../guest/nbd/netlink.ts';
import { findFamily } from '../../../guest/nbd/netlink-socket.ts';
import { fuzzDecoder, fuzzRounds } from '../../fuzz/fuzz.ts';
import { MemoryDevice } from './memory-device.ts';

/** A family reply (attribute 1 = 0x1c, attribute 2 = "nbd") and its acknowledgement, sequence 1. */
const ANSWER = Buffer.from(
  [
    '24000000 1000 0000 01000000 64000000 0102 0000 0600 0100 1c00 0000 0800 0200 6e626400',
    '24000000 0200 0001 01000000 64000000 00000000 20000000 1000 0500 01000000 00000000',
  ]
    .join('')
    .replaceAll(' ', ''),
  'hex',
);

describe('generic netlink', () => {
  it('writes a command byte for byte', () => {
    const sockets = nested(7, [nested(1, [u32Attribute(1, 9)])]);
    const attributes = [u64Attribute(2, 4096), attribute(1, Buffer.of(5)), sockets];
    const bytes = encodeGeneric({ family: 0x1c, command: 1, version: 1, attributes }, 3);
    const wanted = [
      '38000000 1c00 0500 03000000 00000000 01 01 0000',
      '0c00 0200 0010000000000000',
      '0500 0100 05000000',
      '1000 0780 0c00 0180 0800 0100 09000000',
    ];
    assert.equal(bytes.toString('hex'), wanted.join('').replaceAll(' ', ''));
    assert.equal(bytes.readUInt32LE(), bytes.length);
  });

  it('reads attributes and the acknowledgement', () => {
    const answer = decodeAnswer(ANSWER, 1);
    assert.deepEqual(
      answer.attributes.map(({ type, payload }) => [type, payload.toString('hex')]),
      [
        [1, '1c00'],
        [2, '6e626400'],
      ],
    );
    assert.equal(answer.errorNumber, 0);
    assert.deepEqual(decodeAnswer(ANSWER, 2), { attributes: [] });
  });

  it('reads an error as a positive errno', () => {
    const refusal = Buffer.from(ANSWER.subarray(36));
    refusal.writeInt32LE(-16, 16);
    assert.equal(decodeAnswer(refusal, 1).errorNumber, 16);
  });

  it('never loses itself in what is not netlink', () => {
    fuzzDecoder('netlink', [ANSWER], fuzzRounds(20_000), (bytes) => decodeAnswer(bytes, 1));
    for (let length = 1; length < ANSWER.length; length += 1) {
      if (length === 36) continue;
      assert.throws(() => decodeAnswer(ANSWER.subarray(0, length), 1), { code: 'ERR_NBD_FAILED' });
    }
  });

  it('asks this kernel for a family', async () => {
    assert.equal(await findFamily('nlctrl'), 0x10);
    assert.equal(await findFamily('postern-no-such'), undefined);
  });
});

describe('block size for the kernel', () => {
  for (const [sizeBytes, preferredBlockBytes, wanted] of [
    [1024 * 1024, 4096, 4096],
    [1024 * 1024, 65_536, 4096],
    [1024 * 1024, 1024, 1024],
    [3 * 1024, 4096, 1024],
    [1000, 4096, 512],
  ] as const) {
    it(`is ${wanted} for ${sizeBytes} bytes that prefer ${preferredBlockBytes}`, () => {
      assert.equal(kernelBlockBytes(new MemoryDevice(sizeBytes, { preferredBlockBytes })), wanted);
    });
  }
});
