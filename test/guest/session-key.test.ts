import assert from 'node:assert/strict';
import { chmod, chown, lstat, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { loadSessionKey } from '../../guest/session/key.ts';
import { scratch } from './fake-parent.ts';

describe('the session key file', () => {
  let folder: string;
  let remove: () => Promise<void>;
  let file: string;
  let round = 0;

  before(async () => {
    ({ folder, remove } = await scratch());
  });
  after(() => remove());
  beforeEach(async () => {
    round += 1;
    await mkdir(join(folder, String(round)), { mode: 0o700 });
    file = join(folder, String(round), 'session.key');
  });

  it('is made once, for its owner alone, and found again', async () => {
    const key = await loadSessionKey(file);
    assert.equal(key.length, 32);
    assert.equal((await lstat(file)).mode & 0o7777, 0o600);
    assert.deepEqual(await loadSessionKey(file), key);
    assert.deepEqual(await readFile(file), key);
    assert.deepEqual(await readdir(join(folder, String(round))), ['session.key']);
  });

  it('gets a folder of its own where there is none', async () => {
    const deep = join(folder, String(round), 'a', 'b', 'session.key');
    await loadSessionKey(deep);
    assert.equal((await lstat(join(folder, String(round), 'a'))).mode & 0o777, 0o700);
  });

  it('is the same for agents that start at the same time', async () => {
    const keys = await Promise.all(Array.from({ length: 8 }, () => loadSessionKey(file)));
    for (const key of keys) assert.deepEqual(key, keys[0]);
  });

  const unsafe: [name: string, prepare: () => Promise<void>][] = [
    ['others may read it', () => writeFile(file, Buffer.alloc(32), { mode: 0o644 })],
    ['its group may read it', () => writeFile(file, Buffer.alloc(32), { mode: 0o640 })],
    ['it is too short', () => writeFile(file, Buffer.alloc(31), { mode: 0o600 })],
    ['it is empty', () => writeFile(file, '', { mode: 0o600 })],
    ['it is too long', () => writeFile(file, Buffer.alloc(33), { mode: 0o600 })],
    ['it is a folder', () => mkdir(file, { mode: 0o700 })],
    ['its folder is open to others', () => chmod(join(folder, String(round)), 0o777)],
    ['its folder is sticky and open, as /tmp is', () => chmod(join(folder, String(round)), 0o1777)],
    [
      'it is a link',
      async () => {
        await writeFile(`${file}.real`, Buffer.alloc(32), { mode: 0o600 });
        await symlink(`${file}.real`, file);
      },
    ],
  ];
  for (const [name, prepare] of unsafe) {
    it(`is refused when ${name}, and left as it is`, async () => {
      await prepare();
      const before = await lstat(file).catch(() => undefined);
      await assert.rejects(loadSessionKey(file), { code: 'ERR_SESSION_KEY' });
      const behind = await lstat(file).catch(() => undefined);
      assert.equal(behind?.size, before?.size);
      assert.equal(behind?.ino, before?.ino);
    });
  }

  it('is refused when it belongs to somebody else', { skip: process.geteuid?.() !== 0 }, async () => {
    await writeFile(file, Buffer.alloc(32), { mode: 0o600 });
    await chown(file, 65_534, 65_534);
    await assert.rejects(loadSessionKey(file), { code: 'ERR_SESSION_KEY' });
  });
});
