import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after, describe, it } from 'node:test';
import { openDirectoryStore } from '../../../parent/objects/directory.ts';
import { objectStoreConformance } from '../../conformance/object-store.ts';

const folders: string[] = [];
async function newFolder(): Promise<string> {
  const folder = await mkdtemp(`${tmpdir()}/postern-directory-`);
  folders.push(folder);
  return folder;
}
after(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true }))));

objectStoreConformance('directory', async () => ({ store: await openDirectoryStore(await newFolder()) }));

const unsuitable = { code: 'ERR_STORE_UNSUITABLE' };

describe('directory store', () => {
  it('refuses a folder that is not there, not a folder, or open to everybody', async () => {
    const root = await newFolder();
    await assert.rejects(openDirectoryStore(`${root}/none`), unsuitable);
    await writeFile(`${root}/file`, '');
    await assert.rejects(openDirectoryStore(`${root}/file`), unsuitable);
    await mkdir(`${root}/open`);
    await chmod(`${root}/open`, 0o777);
    await assert.rejects(openDirectoryStore(`${root}/open`), unsuitable);
  });

  it('removes what a crash left behind, and nothing else', async () => {
    const root = await newFolder();
    const first = await openDirectoryStore(root);
    await first.putIfAbsent('v/a', Buffer.from('kept'));
    await writeFile(`${root}/%tmp/${process.pid}-1-abc`, 'of a process that had the id before');
    await writeFile(`${root}/%tmp/4194305-1-abc`, 'of a process with an id that none has');
    await writeFile(`${root}/%tmp/abc`, 'of nobody');
    await writeFile(`${root}/%tmp/${process.ppid}-1-abc`, 'of a process that lives');
    const second = await openDirectoryStore(root);
    assert.deepEqual(await readdir(`${root}/%tmp`), [`${process.ppid}-1-abc`]);
    assert.equal(String(await second.get('v/a')), 'kept');
    assert.deepEqual((await second.list('')).objects, [{ key: 'v/a', sizeBytes: 4 }]);
  });

  it('leaves no temporary file after a PUT, a refused one included', async () => {
    const root = await newFolder();
    const store = await openDirectoryStore(root);
    await Promise.all(
      Array.from({ length: 20 }, (_, index) => store.putIfAbsent('v/same', Buffer.from([index]))),
    );
    assert.deepEqual(await readdir(`${root}/%tmp`), []);
    assert.deepEqual(await readdir(`${root}/v`), ['same%']);
  });

  it('follows no symbolic link, whichever part of the path it is', async () => {
    const root = await newFolder();
    const outside = await newFolder();
    await writeFile(`${outside}/secret%`, 'outside');
    const store = await openDirectoryStore(root);
    await store.putIfAbsent('v/a', Buffer.from('inside'));
    await symlink(outside, `${root}/link`);
    await symlink(`${outside}/secret%`, `${root}/v/file%`);
    const denied = { code: 'ERR_STORE_DENIED' };
    await assert.rejects(store.get('link/secret'), denied);
    await assert.rejects(store.head('link/secret'), denied);
    await assert.rejects(store.putIfAbsent('link/new', Buffer.from('x')), denied);
    await assert.rejects(store.delete('link/secret'), denied);
    await assert.rejects(store.list('link/'), denied);
    await assert.rejects(store.get('v/file'), denied);
    assert.equal(await store.putIfAbsent('v/file', Buffer.from('x')), 'exists');
    assert.deepEqual(
      (await store.list('')).objects.map(({ key }) => key),
      ['v/a'],
    );
    assert.deepEqual(await readdir(outside), ['secret%']);
  });

  it('passes over files that are not its own', async () => {
    const root = await newFolder();
    const store = await openDirectoryStore(root);
    await store.putIfAbsent('v/a', Buffer.from('a'));
    await writeFile(`${root}/v/README`, 'x');
    await writeFile(`${root}/v/with space%`, 'x');
    await mkdir(`${root}/v/b%`);
    await mkdir(`${root}/lost+found`);
    assert.deepEqual(
      (await store.list('')).objects.map(({ key }) => key),
      ['v/a'],
    );
    assert.equal(await store.get('v/README'), undefined);
    await assert.rejects(store.get('v/b'), { code: 'ERR_STORE_CORRUPT' });
  });

  it('says "out of reach", never "no such object", where its folder is gone or another', async () => {
    const root = `${await newFolder()}/store`;
    await mkdir(root);
    const store = await openDirectoryStore(root);
    await store.putIfAbsent('v/a', Buffer.from('a'));
    await rename(root, `${root}-elsewhere`);
    const gone = { code: 'ERR_STORE_UNAVAILABLE' };
    for (let round = 0; round < 2; round += 1) {
      await assert.rejects(store.get('v/a'), gone);
      await assert.rejects(store.head('v/a'), gone);
      await assert.rejects(store.list('v/'), gone);
      await assert.rejects(store.delete('v/a'), gone);
      await assert.rejects(store.putIfAbsent('v/b', Buffer.from('b')), gone);
      // An empty mount point shows up in its place.
      if (round === 0) await mkdir(root);
    }
    await rm(root, { recursive: true });
    await rename(`${root}-elsewhere`, root);
    assert.equal(String(await store.get('v/a')), 'a');
  });

  it('makes a folder anew that was removed below it', async () => {
    const root = await newFolder();
    const store = await openDirectoryStore(root);
    await store.putIfAbsent('v/s/a', Buffer.from('a'));
    await rm(`${root}/v`, { recursive: true });
    assert.equal(await store.get('v/s/a'), undefined);
    assert.equal(await store.putIfAbsent('v/s/a', Buffer.from('b')), 'created');
    assert.equal(String(await store.get('v/s/a')), 'b');
  });
});
