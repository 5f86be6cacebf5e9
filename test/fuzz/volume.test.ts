import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeHeader, openCommit, sealCommit } from '../../guest/volume/commit.ts';
import { FieldReader } from '../../guest/volume/fields.ts';
import { decodeVolumeHeader, encodeVolumeHeader, unwrapKeys, wrapKeys } from '../../guest/volume/header.ts';
import { Manifest } from '../../guest/volume/manifest.ts';
import { type CommitRecord, decodeRecord, encodeRecord } from '../../guest/volume/record.ts';
import {
  decodeSegmentEntry,
  decodeSpans,
  encodeSegmentEntry,
  encodeSpans,
} from '../../guest/volume/segment.ts';
import {
  BASE_KEY,
  counting,
  GENERATION_KEY,
  KEYS,
  sampleEntry,
  sampleRecord,
  VOLUME,
  VOLUME_ID,
} from '../volume/sample.ts';
import { fuzzDecoder, fuzzRounds } from './fuzz.ts';

const SPANS = [
  { lba: 100, blocks: 2 },
  { lba: 10, blocks: 1 },
];
const ENTRY = sampleEntry(SPANS, { kind: 'inline', epoch: 3, seq: 5 });
const NUMBERED = [{ number: 77, entry: sampleEntry(SPANS, { kind: 'table', liveBlocks: 3 }) }];

const RECORDS: CommitRecord[] = [
  sampleRecord(),
  sampleRecord({ attach: true, nonce: counting(32) }),
  sampleRecord({
    groups: [
      {
        trims: [
          { lba: 1, count: 9 },
          { lba: 90, count: 2 ** 36 },
        ],
        segments: [],
      },
      { trims: [], segments: [{ number: 8, entry: ENTRY, spans: SPANS }] },
    ],
  }),
  sampleRecord({
    checkpointSeq: 5,
    checkpoint: {
      coversSeq: 4,
      indexRoot: 65536,
      tableRoot: 65537,
      tableSegments: NUMBERED,
      freed: [
        { kind: 'segment', id: counting(16) },
        { kind: 'commit', epoch: 1, seq: 2 },
      ],
      snapshots: [
        {
          id: counting(16),
          name: 'nightly',
          timeMs: 1,
          seq: 2,
          sizeBytes: 3,
          indexRoot: 4,
          manifest: NUMBERED,
        },
      ],
    },
    restoreToken: counting(64),
  }),
];

/** Every prefix is refused with a coded error, none of them read as something else. */
function truncations(whole: Buffer, decode: (bytes: Buffer) => unknown): void {
  for (let length = 0; length < whole.length; length += 1) {
    assert.throws(
      () => decode(Buffer.from(whole.subarray(0, length))),
      { name: 'PosternError' },
      `${length} bytes`,
    );
  }
}

test('commit records: round trip, every truncation, mutations', () => {
  const corpus = RECORDS.map((record) => encodeRecord(record));
  for (const [index, bytes] of corpus.entries()) {
    assert.deepEqual(decodeRecord(bytes, 5, 'record'), RECORDS[index]);
    truncations(bytes, (cut) => decodeRecord(cut, 5, 'record'));
  }
  fuzzDecoder(
    'record',
    corpus,
    fuzzRounds(3000),
    (bytes) => decodeRecord(bytes, 5, 'record'),
    (record, bytes) => {
      // What decodes is the only encoding of itself.
      assert.deepEqual(encodeRecord(record), bytes);
    },
  );
});

test('sealed commits: every truncation, every bit of the front, mutations', () => {
  const corpus = RECORDS.map((record) => sealCommit(KEYS, VOLUME, 3, 5, record).bytes);
  const open = (bytes: Buffer): unknown => openCommit(KEYS, VOLUME, decodeHeader(bytes, 3, 5), bytes);
  const [first = Buffer.alloc(0)] = corpus;
  truncations(first, open);
  for (let bit = 0; bit < first.length * 8; bit += 1) {
    const changed = Buffer.from(first);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    // The generation in the clear only chooses the key: with the same key given, it must fail to verify.
    assert.throws(() => open(changed), { name: 'PosternError' }, `bit ${bit}`);
  }
  fuzzDecoder('commit', corpus, fuzzRounds(500), open, (_record, bytes) => {
    assert.ok(
      corpus.some((whole) => whole.equals(bytes)),
      'a changed commit opened',
    );
  });
});

test('volume headers and wraps: every truncation and mutation', () => {
  const facts = { volumeId: VOLUME_ID, anchorId: counting(16), salt: counting(16, 5) };
  const corpus = [
    encodeVolumeHeader({ ...facts, name: 'data', mode: { kind: 'strict' }, ownerKey: undefined }),
    encodeVolumeHeader({
      ...facts,
      name: 'n'.repeat(128),
      mode: { kind: 'lazy', maxMs: 5, maxCommits: 6 },
      ownerKey: counting(32),
    }),
    encodeVolumeHeader({ ...facts, name: 'x', mode: { kind: 'none' }, ownerKey: undefined }),
  ];
  for (const bytes of corpus) truncations(bytes, decodeVolumeHeader);
  fuzzDecoder('header', corpus, fuzzRounds(3000), decodeVolumeHeader);
  const [header = Buffer.alloc(0)] = corpus;
  const keys = { generationKey: GENERATION_KEY, baseKey: BASE_KEY };
  const wrap = wrapKeys(counting(32), header, 1, keys, counting(24));
  truncations(wrap, (bytes) => unwrapKeys(counting(32), header, 1, bytes));
  fuzzDecoder(
    'wrap',
    [wrap],
    fuzzRounds(300),
    (bytes) => unwrapKeys(counting(32), header, 1, bytes),
    (_keys, bytes) => assert.ok(bytes.equals(wrap)),
  );
});

test('segment entries, directories and manifests: round trip and mutations', () => {
  const entries = [ENTRY, ...NUMBERED.map(({ entry }) => entry)];
  for (const entry of entries)
    assert.deepEqual(decodeSegmentEntry(encodeSegmentEntry(entry), 'entry'), entry);
  fuzzDecoder('entry', entries.map(encodeSegmentEntry), fuzzRounds(3000), (bytes) =>
    decodeSegmentEntry(bytes, 'entry'),
  );
  const spans = encodeSpans(SPANS);
  assert.deepEqual(decodeSpans(new FieldReader(spans, 'spans'), 2), SPANS);
  fuzzDecoder('spans', [spans], fuzzRounds(3000), (bytes) => decodeSpans(new FieldReader(bytes, 'spans'), 2));
  const manifest = new Manifest([1, 5, 2 ** 40], [7, 1, 4096]);
  const decoded = Manifest.decode(manifest.encode());
  assert.deepEqual(
    [1, 2, 5, 2 ** 40].map((number) => decoded.liveBlocks(number)),
    [7, 0, 1, 4096],
  );
  fuzzDecoder('manifest', [manifest.encode().subarray(0, 60)], fuzzRounds(3000), (bytes) =>
    Manifest.decode(bytes),
  );
});
