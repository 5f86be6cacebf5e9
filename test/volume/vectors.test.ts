import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { COMMIT_HEADER_BYTES, decodeHeader, openCommit, sealCommit } from '../../guest/volume/commit.ts';
import { append, commitLeaf, EMPTY_FRONTIER, rootHash } from '../../guest/volume/frontier.ts';
import { encodeVolumeHeader, rootId, unwrapKeys, wrapKeys } from '../../guest/volume/header.ts';
import { derive, inlineSegmentId, label, segmentId, u32Field } from '../../guest/volume/keys.ts';
import { openFrame, SivBuilder, sealFrame, segmentSeal, sha256 } from '../../guest/volume/seal.ts';
import {
  BASE_KEY,
  counting,
  GENERATION_KEY,
  KEYS,
  sampleEntry,
  sampleRecord,
  VOLUME,
  VOLUME_ID,
} from './sample.ts';

/** The document's own table: one source for both. */
const FORMAT = readFileSync(new URL('../../guest/volume/format.md', import.meta.url), 'utf8');
const EXPECTED = new Map(
  [...FORMAT.matchAll(/^([a-z0-9-]+) ([0-9a-f]+)$/gm)].map(([, name, hex]) => [name, hex]),
);

function check(name: string, bytes: Uint8Array): void {
  assert.equal(Buffer.from(bytes).toString('hex'), EXPECTED.get(name), `vector ${name}`);
}

test('labels carry the length of everything variable', () => {
  assert.notDeepEqual(label('a', Buffer.from('bc')), label('ab', Buffer.from('c')));
  check('label', label('seg', Buffer.from('x')));
});

test('keys are derived as written down', () => {
  check('mac', KEYS.mac.export());
  check('enc', derive(GENERATION_KEY, label('enc', VOLUME_ID, u32Field(1))));
  check('commit', KEYS.commit.export());
  check('name', VOLUME.name.export());
  check('anchor-seed', VOLUME.anchorSeed);
  check('segment-id', segmentId(VOLUME, 7, 300));
  check('inline-id', inlineSegmentId(VOLUME, 7, 41));
});

test('a segment of two frames is sealed as written down', () => {
  const id = segmentId(VOLUME, 7, 300);
  const first = counting(8192);
  const second = counting(4096, 5);
  const directory = Buffer.from('6400000000000200' + '0a00000000000100', 'hex');
  const siv = new SivBuilder(KEYS, VOLUME_ID, id);
  for (const frame of [first, second, directory]) siv.update(frame);
  const sivBytes = siv.finish();
  check('siv', sivBytes);
  const seal = segmentSeal(KEYS, VOLUME_ID, id, sivBytes);
  check('segment-key', seal.key.export());
  const target = Buffer.alloc(8192 + 4096 + 32);
  const at = sealFrame(seal, 0, { lba: 100, blocks: 2 }, first, target, 0);
  sealFrame(seal, 1, { lba: 10, blocks: 1 }, second, target, at);
  check('segment-sha256', sha256(target));
  assert.deepEqual(openFrame(seal, 1, { lba: 10, blocks: 1 }, target.subarray(at)), second);
  const refused = { code: 'ERR_VOLUME_CORRUPT' };
  assert.throws(() => openFrame(seal, 0, { lba: 10, blocks: 1 }, target.subarray(at)), refused);
  assert.throws(() => openFrame(seal, 1, { lba: 11, blocks: 1 }, target.subarray(at)), refused);
  assert.throws(() => openFrame(seal, 1, { lba: 10, blocks: 2 }, target.subarray(at)), refused);
});

test('a commit is sealed as written down', () => {
  const spans = [
    { lba: 100, blocks: 2 },
    { lba: 10, blocks: 1 },
  ];
  const entry = sampleEntry(spans, { kind: 'inline', epoch: 3, seq: 5 });
  const groups = [{ trims: [{ lba: 1, count: 9 }], segments: [{ number: 8, entry, spans }] }];
  const sealed = sealCommit(KEYS, VOLUME, 3, 5, sampleRecord({ groups }));
  check('commit-header', sealed.bytes.subarray(0, COMMIT_HEADER_BYTES));
  check('commit-hash', sealed.hash);
  const header = decodeHeader(sealed.bytes, 3, 5);
  assert.deepEqual(openCommit(KEYS, VOLUME, header, sealed.bytes), sampleRecord({ groups }));
  check('leaf', commitLeaf(VOLUME, 3, 5, sealed.hash));
});

test('the header and its wrap are as written down', () => {
  const header = encodeVolumeHeader({
    volumeId: VOLUME_ID,
    anchorId: counting(16, 0xa0),
    name: 'data',
    mode: { kind: 'lazy', maxMs: 500, maxCommits: 8 },
    salt: counting(16, 0xb0),
    ownerKey: undefined,
  });
  check('header-front', header.subarray(0, 69));
  check('header-hash', sha256(header));
  const rootKey = counting(32, 0xc0);
  const keys = { generationKey: GENERATION_KEY, baseKey: BASE_KEY };
  const wrap = wrapKeys(rootKey, header, 1, keys, counting(24, 0xd0));
  check('wrap', wrap);
  check('root-id', rootId(rootKey, VOLUME_ID));
  assert.deepEqual(unwrapKeys(rootKey, header, 1, wrap), keys);
  const refused = { code: 'ERR_VOLUME_KEY' };
  assert.throws(() => unwrapKeys(counting(32), header, 1, wrap), refused);
  assert.throws(() => unwrapKeys(rootKey, header, 2, wrap), refused);
  for (let at = 0; at < header.length; at += 1) {
    const changed = Buffer.from(header);
    changed[at] = (changed[at] ?? 0) ^ 1;
    assert.throws(() => unwrapKeys(rootKey, changed, 1, wrap), refused);
  }
});

test('the log of commits is RFC 6962’s', () => {
  // Root hashes of the seven-leaf tree that certificate transparency implementations share as a test.
  const leaves = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657'];
  const roots = [
    '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
    'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
    'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
    'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
    '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
    'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  ];
  let frontier = EMPTY_FRONTIER;
  for (const [index, leaf] of leaves.entries()) {
    frontier = append(frontier, Buffer.from(leaf, 'hex'));
    assert.equal(rootHash(frontier).toString('hex'), roots[index]);
  }
});
