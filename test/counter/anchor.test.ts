import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { FileAnchor } from '../../guest/counter/file.ts';
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

test('a damaged head is an error, never a fresh start', async () => {
  const anchor = new FileAnchor(folder);
  const log = new SampleLog();
  await anchor.create(log.volume, log.head);
  const path = join(folder, `${log.volume.anchorId.toString('hex')}.json`);
  for (const text of ['', '{}', '{"version":1,"epoch":0,"seq":-1,"commitHash":""}', 'x'.repeat(2000)]) {
    await writeFile(path, text);
    await assert.rejects(anchor.read(log.volume), { code: 'ERR_ANCHOR_CORRUPT' });
    await assert.rejects(anchor.create(log.volume, log.head), { code: 'ERR_ANCHOR_CORRUPT' });
  }
});

test('the lock of a process that died is taken over', async () => {
  const anchor = new FileAnchor(folder);
  const log = new SampleLog();
  await anchor.create(log.volume, log.head);
  const path = join(folder, `${log.volume.anchorId.toString('hex')}.json.lock`);
  // No process has the largest pid that Linux could give plus one.
  await writeFile(path, String(2 ** 22 + 1));
  assert.deepEqual(await anchor.advance(log.volume, log.step([log.leaf(1)])), { outcome: 'advanced' });
});

test('says that it is for development', () => {
  assert.equal(new FileAnchor(folder).capabilities.production, false);
});
