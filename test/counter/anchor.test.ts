import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { FileAnchor } from '../../guest/counter/file.ts';
import { SLOT_BYTES, slotOffset } from '../../guest/counter/file-head.ts';
import { PosternError } from '../../shared/errors.ts';
import { tryLock } from '../../shared/transport/native/libc.ts';
import { anchorConformance, SampleLog } from '../conformance/anchor.ts';
import { AnchorHeads, MemoryAnchor } from '../volume/memory-anchor.ts';

let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-anchor-'));
});
after(() => rm(folder, { recursive: true, force: true }));

const heads = new AnchorHeads();
anchorConformance('memory', async () => new MemoryAnchor(heads));
anchorConformance('file', async () => new FileAnchor(folder));

/** The file of a volume's head, and an anchor that made it. */
async function created(): Promise<{ anchor: FileAnchor; log: SampleLog; path: string }> {
  const anchor = new FileAnchor(folder);
  const log = new SampleLog();
  await anchor.create(log.volume, log.head);
  return { anchor, log, path: join(folder, `${log.volume.anchorId.toString('hex')}.anchor`) };
}

test('a record that was written and not synced is on the disk before the slot of the one before it is given up', async () => {
  const { log, path } = await created();
  const first = log.step([log.leaf(1)]);
  await new FileAnchor(folder).advance(log.volume, first);
  log.follow(first.leaves);
  const durable = await readFile(path);
  // Its writer dies after the write: what it wrote is in the page cache alone.
  let syncCount = 0;
  const dying = new FileAnchor(folder, async () => {
    syncCount += 1;
    if (syncCount === 2) throw new PosternError('ERR_ANCHOR_UNAVAILABLE', 'killed');
  });
  const second = log.step([log.leaf(2)]);
  await assert.rejects(dying.advance(log.volume, second), { code: 'ERR_ANCHOR_UNAVAILABLE' });
  log.follow(second.leaves);
  const slotOf = (bytes: Buffer, turn: number): Buffer =>
    bytes.subarray(slotOffset(turn)).subarray(0, SLOT_BYTES);
  const synced: Buffer[] = [];
  const next = new FileAnchor(folder, async () => {
    synced.push(await readFile(path));
  });
  const third = log.step([log.leaf(3)]);
  assert.deepEqual(await next.advance(log.volume, third), { outcome: 'advanced' });
  log.follow(third.leaves);
  // Until the first sync has ended, the record of turn 2, the newest that is surely on the disk, stands where it stood.
  assert.equal(synced.length, 2);
  assert.deepEqual(slotOf(synced[0] ?? Buffer.alloc(0), 2), slotOf(durable, 2));
  // What this process saw reach the disk itself is written once.
  assert.deepEqual(await next.advance(log.volume, log.step([log.leaf(4)])), { outcome: 'advanced' });
  assert.equal(synced.length, 3);
});

test('an advance waits for the lock of another, which ends with its holder', async () => {
  const { anchor, log, path } = await created();
  const fd = openSync(path, 'r');
  assert.equal(tryLock(fd), true);
  let isDone = false;
  const advance = anchor.advance(log.volume, log.step([log.leaf(1)])).finally(() => {
    isDone = true;
  });
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isDone, false);
  closeSync(fd);
  assert.deepEqual(await advance, { outcome: 'advanced' });
});

test('says that it is for development', () => {
  assert.equal(new FileAnchor(folder).capabilities.production, false);
});
