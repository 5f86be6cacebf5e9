import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type AnchorHead, equalHeads } from '../../guest/counter/anchor.ts';
import { FileAnchor } from '../../guest/counter/file.ts';
import {
  COPY_BYTES,
  HEAD_FILE_BYTES,
  newestHead,
  RECORD_BYTES,
  SLOT_BYTES,
  slotOffset,
} from '../../guest/counter/file-head.ts';
import { isPosternError } from '../../shared/errors.ts';
import { seededRandom } from '../../shared/objects/random.ts';
import { SampleLog } from '../conformance/anchor.ts';

const TURNS = 6;
const ROUNDS = process.env['SLOW'] === '1' ? 200_000 : 5_000;
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));

let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-anchor-'));
});
after(() => rm(folder, { recursive: true, force: true }));

/** An anchor's file after its creation and after each of some advances, and the head that it held then. */
interface History {
  readonly anchor: FileAnchor;
  readonly log: SampleLog;
  readonly path: string;
  readonly files: readonly Buffer[];
  readonly heads: readonly AnchorHead[];
}

async function history(): Promise<History> {
  const anchor = new FileAnchor(folder);
  const log = new SampleLog();
  await anchor.create(log.volume, log.head);
  const path = join(folder, `${log.volume.anchorId.toString('hex')}.anchor`);
  const files = [await readFile(path)];
  const heads = [log.head];
  for (let seq = 1; seq < TURNS; seq += 1) {
    const step = log.step([log.leaf(seq)]);
    assert.deepEqual(await anchor.advance(log.volume, step), { outcome: 'advanced' });
    log.follow(step.leaves);
    files.push(await readFile(path));
    heads.push(log.head);
  }
  return { anchor, log, path, files, heads };
}

/** The head in a file, or that it is damaged. */
function headIn(file: Buffer): AnchorHead | 'corrupt' {
  try {
    return newestHead(file, 'anchor').head;
  } catch (error) {
    if (isPosternError(error, 'ERR_ANCHOR_CORRUPT')) return 'corrupt';
    throw error;
  }
}

function isHead(found: AnchorHead | 'corrupt', head: AnchorHead | undefined): boolean {
  return found !== 'corrupt' && head !== undefined && equalHeads(found, head);
}

/** Where the copies of all records begin. */
const COPIES = [0, COPY_BYTES, SLOT_BYTES, SLOT_BYTES + COPY_BYTES];

test('a bit that flips in any byte of any record changes nothing of the head', async () => {
  const { files, heads } = await history();
  for (const [index, file] of files.entries()) {
    for (const copy of COPIES) {
      for (let at = copy; at < copy + RECORD_BYTES; at += 1) {
        const changed = Buffer.from(file.with(at, (file[at] ?? 0) ^ (1 << (at % 8))));
        assert.ok(isHead(headIn(changed), heads[index]), `head ${index}, byte ${at}`);
      }
    }
  }
});

test('a record of which both copies rot is an error, whichever of the two it is, and never the state before', async () => {
  const { files } = await history();
  for (const file of files) {
    for (const slot of [0, SLOT_BYTES]) {
      for (let at = 0; at < RECORD_BYTES; at += 1) {
        const changed = Buffer.from(file);
        for (const byte of [slot + at, slot + COPY_BYTES + RECORD_BYTES - 1 - at]) {
          changed.writeUInt8((changed[byte] ?? 0) ^ 0x10, byte);
        }
        assert.equal(headIn(changed), 'corrupt');
      }
      assert.equal(headIn(Buffer.from(file).fill(0, slot, slot + SLOT_BYTES)), 'corrupt');
    }
  }
});

test('a file that is cut anywhere, or longer than it was, is an error', async () => {
  const { files } = await history();
  const [file = Buffer.alloc(0)] = files.slice(-1);
  for (let length = 0; length < file.length; length += 1) {
    assert.equal(headIn(file.subarray(0, length)), 'corrupt', `${length} bytes`);
  }
  assert.equal(headIn(Buffer.concat([file, Buffer.alloc(1)])), 'corrupt');
  assert.equal(headIn(Buffer.concat([file, file])), 'corrupt');
});

test('a write that the power cuts at any byte leaves the head before it or its own, and goes on from there', async () => {
  const { anchor, log, path, files, heads } = await history();
  for (let index = 1; index < files.length; index += 1) {
    const [old = Buffer.alloc(0), next = Buffer.alloc(0)] = [files[index - 1], files[index]];
    const from = slotOffset(index + 1);
    for (let cut = 0; cut <= COPY_BYTES + RECORD_BYTES; cut += 1) {
      const torn = Buffer.from(old);
      next.copy(torn, from, from, from + cut);
      const isDone = cut >= RECORD_BYTES;
      assert.ok(isHead(headIn(torn), heads[isDone ? index : index - 1]), `turn ${index}, cut at ${cut}`);
      // The sector that was being written holds neither.
      for (const copy of [from, from + COPY_BYTES]) {
        if (cut <= copy - from || cut >= copy - from + RECORD_BYTES) continue;
        torn.fill(0xee, from + cut, copy + RECORD_BYTES);
        assert.ok(isHead(headIn(torn), heads[isDone ? index : index - 1]), `turn ${index}, torn at ${cut}`);
      }
    }
    // The blocks may reach the disk in the other order.
    const last = Buffer.from(old);
    next.copy(last, from + COPY_BYTES, from + COPY_BYTES, from + SLOT_BYTES);
    assert.ok(isHead(headIn(last), heads[index]));
    const torn = Buffer.from(old).fill(0xee, from + 50, from + RECORD_BYTES);
    await writeFile(path, torn);
    assert.ok(isHead((await anchor.read(log.volume)) ?? 'corrupt', heads[index - 1]));
    const [before, head] = [heads[index - 1], heads[index]];
    assert.ok(before !== undefined && head !== undefined);
    const leaves = [{ ...head, leaf: Buffer.alloc(32) }];
    const again = await new FileAnchor(folder).advance(log.volume, { from: before, frontier: [], leaves });
    assert.deepEqual(again, { outcome: 'advanced' });
    assert.ok(isHead(headIn(await readFile(path)), head));
  }
});

test('whatever rots, no head but the newest is given out', async (t) => {
  t.diagnostic(`SEED=${SEED}`);
  const random = seededRandom(SEED);
  const below = (end: number): number => Math.floor(random() * end);
  const { files, heads } = await history();
  let survivedCount = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const index = below(files.length);
    const file = Buffer.from(files[index] ?? Buffer.alloc(0));
    for (let count = 1 + below(4); count > 0; count -= 1) {
      const at = (COPIES[below(COPIES.length)] ?? 0) + below(RECORD_BYTES);
      const kind = below(3);
      if (kind === 0) file.writeUInt8((file[at] ?? 0) ^ (1 << below(8)), at);
      else file.fill(kind === 1 ? 0 : 0xff, at, Math.min(HEAD_FILE_BYTES, at + 1 + below(6000)));
    }
    const found = headIn(file);
    if (found !== 'corrupt') survivedCount += 1;
    assert.ok(found === 'corrupt' || isHead(found, heads[index]), `SEED=${SEED} round ${round}`);
  }
  assert.ok(survivedCount > 0 && survivedCount < ROUNDS);
});

test('a damaged file fails every operation with what to do, and is never a fresh start', async () => {
  const { anchor, log, path, files } = await history();
  const [whole = Buffer.alloc(0)] = files.slice(-1);
  const swapped = Buffer.concat([whole.subarray(SLOT_BYTES), whole.subarray(0, SLOT_BYTES)]);
  const lost = Buffer.from(whole).fill(0, slotOffset(TURNS), slotOffset(TURNS) + SLOT_BYTES);
  const damages = ['', '{}', Buffer.alloc(HEAD_FILE_BYTES), whole.subarray(SLOT_BYTES), swapped, lost];
  const refusal = { code: 'ERR_ANCHOR_CORRUPT', message: /is damaged: .*Put back a copy of this file/ };
  for (const bytes of damages) {
    await writeFile(path, bytes);
    await assert.rejects(anchor.read(log.volume), refusal);
    await assert.rejects(anchor.create(log.volume, log.head), refusal);
    await assert.rejects(anchor.advance(log.volume, log.step([log.leaf(TURNS)])), refusal);
  }
  await writeFile(path, whole);
  assert.deepEqual(await anchor.advance(log.volume, log.step([log.leaf(TURNS)])), { outcome: 'advanced' });
});
