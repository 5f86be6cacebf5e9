import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import type { VolumeStatus } from '../../../guest/volume/status.ts';
import type { PartyProcess } from '../../../shared/demo/party.ts';
import { DiskClient } from './client.ts';
import { type Ran, VolumeWorld } from './world.ts';

const MIB = 1024 * 1024;

describe('a volume, from its creation to its deletion', () => {
  let world: VolumeWorld;
  let parent: PartyProcess;
  const first = randomBytes(3 * MIB);
  const second = randomBytes(MIB);

  before(async () => {
    world = await VolumeWorld.make();
    parent = await world.startParent();
  });
  after(() => world.remove());

  async function done(...args: string[]): Promise<Ran> {
    const ran = await world.volume(...args);
    assert.equal(ran.code, 0, ran.stderr);
    return ran;
  }
  async function status(): Promise<VolumeStatus> {
    return JSON.parse((await done('status', 'data', '--json')).stdout);
  }

  test('an agent does not attach what nobody created, and says how to', async () => {
    const ran = await world.run('guest', '--config', world.path('guest.yaml'));
    assert.equal(ran.code, 1);
    assert.match(ran.stderr, /ERR_VOLUME_NOT_FOUND/);
    assert.match(ran.stderr, /postern volume create data/);
    assert.match((await done('list')).stdout, /^data\tdoes not exist/);
  });

  test('it is created once, and only once', async () => {
    const { stdout } = await done('create', 'data', '--size', '64MiB');
    assert.match(stdout, /volume data of 67108864 bytes is there, mode strict/);
    const again = await world.volume('create', 'data', '--size', '64MiB');
    assert.equal(again.code, 1);
    assert.match(again.stderr, /ERR_VOLUME_EXISTS/);
    const { sizeBytes, attached, seq } = await status();
    assert.deepEqual([sizeBytes, attached, seq], [64 * MIB, false, 0]);
  });

  test('bad input is told as such', async () => {
    for (const args of [
      ['create', 'data', '--size', 'much'],
      ['status', 'other'],
      ['delete', 'data'],
    ]) {
      const ran = await world.volume(...args);
      assert.equal(ran.code, 2, ran.stderr);
      assert.equal(ran.stdout, '');
    }
    const unknown = await world.volume('status', 'dta');
    assert.match(unknown.stderr, /no volume dta; there is data\. .*postern volume create dta --size SIZE/);
    const { code, stderr } = await world.run('volume', 'status', 'data');
    assert.equal(code, 2);
    assert.match(stderr, /--config <file>/);
  });

  test('the agent serves it, and gives it up when it stops', async () => {
    const guest = await world.startGuest();
    const disk = await DiskClient.connect(world.nbdSocket, 'data');
    assert.equal(disk.sizeBytes, 64 * MIB);
    await disk.write(12345, first);
    await disk.flush();
    assert.match((await done('list')).stdout, /^data\tattached, 67108864 bytes/);
    const report = await world.run('guest', 'status', '--config', world.path('guest.yaml'));
    assert.match(report.stdout, /volume +data: serving, 67108864 bytes at .*data\.nbd/);
    const refused = await world.volume('gc', 'data');
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /ERR_VOLUME_IN_USE[\s\S]*--takeover/);
    assert.deepEqual(await disk.read(12345, first.length), first);
    disk.close();
    await guest.stop();
    assert.equal((await status()).attached, false);
  });

  test('it grows, and has snapshots made, while the agent serves it', async () => {
    const guest = await world.startGuest();
    const disk = await DiskClient.connect(world.nbdSocket);
    assert.match((await done('resize', 'data', '72MiB')).stdout, /has 75497472 bytes; clients of its socket/);
    const grown = await DiskClient.connect(world.nbdSocket);
    assert.equal(grown.sizeBytes, 72 * MIB);
    // Who was connected goes on, and may even use what is new.
    await disk.write(72 * MIB - 4096, Buffer.alloc(4096, 1));
    await disk.flush();
    assert.deepEqual(await grown.read(72 * MIB - 4096, 4096), Buffer.alloc(4096, 1));
    for (const { size, why } of [
      { size: '64MiB', why: /ERR_VOLUME_RANGE/ },
      { size: '300T', why: /ERR_(VOLUME_RANGE|WIRE_MALFORMED)/ },
    ]) {
      const refused = await world.volume('resize', 'data', size);
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, why);
    }
    await done('snapshot', 'data', 'live');
    assert.match((await world.volume('snapshot', 'data', 'live')).stderr, /ERR_VOLUME_SNAPSHOT/);
    await done('snapshot', 'data', 'live', '--delete');
    const report = await world.run('guest', 'status', '--config', world.path('guest.yaml'));
    assert.match(report.stdout, /volume +data: serving, 75497472 bytes/);
    disk.close();
    grown.close();
    await guest.stop();
    assert.equal((await status()).sizeBytes, 72 * MIB);
  });

  test('what the parent keeps is noise', async () => {
    const stored = await everything(world.path('objects'));
    assert.ok(stored.length >= first.length);
    for (const secret of [first.subarray(MIB, MIB + 32), Buffer.from('5a'.repeat(32))]) {
      assert.equal(stored.indexOf(secret), -1);
    }
  });

  test('snapshots, restores, growth', async () => {
    await done('snapshot', 'data', 'first');
    const guest = await world.startGuest();
    const disk = await DiskClient.connect(world.nbdSocket);
    await disk.write(0, second);
    await disk.flush();
    disk.close();
    await guest.stop();
    const twice = await world.volume('snapshot', 'data', 'first');
    assert.match(twice.stderr, /ERR_VOLUME_SNAPSHOT/);
    assert.equal((await status()).attached, false, 'a failed command gives the volume up as well');
    assert.match((await done('restore', 'data', 'first', '--dry-run')).stdout, /would restore first/);
    assert.deepEqual(await contents(0, MIB), second);
    assert.match((await done('restore', 'data', 'first')).stdout, /as it was in snapshot first/);
    assert.deepEqual(await contents(12345, first.length), first);
    await done('resize', 'data', '80MiB');
    const { sizeBytes, snapshots } = await status();
    assert.equal(sizeBytes, 80 * MIB);
    assert.deepEqual(
      snapshots.map(({ name }) => name),
      ['first'],
    );
    const smaller = await world.volume('resize', 'data', '64MiB');
    assert.match(smaller.stderr, /ERR_VOLUME_RANGE/);
    await done('snapshot', 'data', 'first', '--delete');
    assert.deepEqual((await status()).snapshots, []);
  });

  test('new keys, collection, check', async () => {
    const { stdout } = await done('rekey', 'data', '--json');
    assert.deepEqual(JSON.parse(stdout), { generation: 2, isDrained: true });
    assert.equal((await status()).oldestGeneration, 2);
    assert.match((await done('gc', 'data', '--dry-run')).stdout, /would delete \d+ orphans/);
    assert.match((await done('gc', 'data')).stdout, /repacked \d+ segments/);
    const checked = JSON.parse((await done('check', 'data', '--json')).stdout);
    assert.equal(checked.problemCount, 0);
    assert.deepEqual(await contents(12345, first.length), first);
  });

  test('a killed agent loses nothing; whoever comes next says that it takes over', async () => {
    const guest = await world.startGuest();
    const disk = await DiskClient.connect(world.nbdSocket);
    await disk.write(7, second);
    await disk.flush();
    await guest.kill();
    const refused = await world.run('guest', '--config', world.path('guest.yaml'));
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /ERR_VOLUME_IN_USE[\s\S]*volumes\.data\.takeover: true/);
    await world.configure({ takeover: true });
    assert.deepEqual(await contents(7, MIB), second);
    await world.configure();
  });

  test('a takeover shuts the agent out, which says so and serves no more', async () => {
    const guest = await world.startGuest();
    const disk = await DiskClient.connect(world.nbdSocket);
    await done('snapshot', 'data', 'late', '--takeover');
    await assert.rejects(disk.write(0, second).then(() => disk.flush()));
    const line = await guest.logged('an eviction', (found) =>
      found.includes('"volume.evicted"') ? found : undefined,
    );
    assert.match(line, /"state":"fenced".*ERR_VOLUME_FENCED/);
    await assert.rejects(DiskClient.connect(world.nbdSocket, 'data'));
    await guest.stop();
  });

  test('an outage of the parent is waited out', async () => {
    const guest = await world.startGuest();
    const disk = await DiskClient.connect(world.nbdSocket);
    await disk.write(0, first);
    await parent.kill();
    const flushed = disk.flush();
    parent = await world.startParent();
    await flushed;
    await disk.write(MIB, second);
    await disk.flush();
    disk.close();
    await guest.stop();
    assert.equal((await status()).attached, false);
    assert.deepEqual(await contents(MIB, MIB), second);
  });

  test('another mode in the configuration than the volume was made with is refused', async () => {
    await world.configure({ mode: 'none', anchor: undefined });
    const ran = await world.run('guest', '--config', world.path('guest.yaml'));
    assert.notEqual(ran.code, 0);
    assert.match(ran.stderr, /ERR_ANCHOR_UNKNOWN|volumes\.data\.mode/);
    await world.configure({ mode: { lazy: { maxMs: 10, maxCommits: 2 } } });
    const lazy = await world.run('guest', '--config', world.path('guest.yaml'));
    assert.equal(lazy.code, 2);
    assert.match(lazy.stderr, /volumes\.data\.mode: expected strict.*found lazy/);
    await world.configure();
    assert.equal((await status()).attached, false);
  });

  test('deletion says what it would delete, and refuses while the volume is in use', async () => {
    const guest = await world.startGuest();
    const disk = await DiskClient.connect(world.nbdSocket);
    // An agent that is held still collects no garbage meanwhile: what changes is the command's doing.
    assert.ok(guest.pid);
    process.kill(guest.pid, 'SIGSTOP');
    const before = await settled(world.path('objects'));
    const dry = await done('delete', 'data', '--dry-run');
    assert.match(dry.stdout, /would delete \d+ objects of \d+ bytes\na volume of 83886080 bytes/);
    assert.match(dry.stdout, /with 1 snapshots: late\nit was not detached.*--takeover/);
    const refused = await world.volume('delete', 'data', '--yes');
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /ERR_VOLUME_IN_USE[\s\S]*--takeover/);
    assert.equal(refused.stdout, '');
    assert.ok((await everything(world.path('objects'))).equals(before));
    process.kill(guest.pid, 'SIGCONT');
    // Meant twice: whoever has it is shut out first, and acknowledges nothing more.
    await done('delete', 'data', '--yes', '--takeover');
    await assert.rejects(disk.write(0, second).then(() => disk.flush()));
    await guest.stop();
    assert.match((await done('list')).stdout, /^data\tdoes not exist/);
  });

  test('a volume whose key is lost is deleted by whoever says so', async () => {
    await done('create', 'data', '--size', '64MiB');
    await writeFile(world.path('other.key'), `${'a5'.repeat(32)}\n`, { mode: 0o600 });
    await world.configure({ key: { file: world.path('other.key') } });
    assert.match((await done('delete', 'data', '--dry-run')).stdout, /cannot be opened: ERR_VOLUME_KEY/);
    const refused = await world.volume('delete', 'data', '--yes');
    assert.match(refused.stderr, /ERR_VOLUME_IN_USE[\s\S]*cannot be told \(ERR_VOLUME_KEY/);
    await done('delete', 'data', '--yes', '--takeover');
    assert.equal((await everything(world.path('objects'))).length, 0);
    const again = await world.volume('delete', 'data', '--yes');
    assert.equal(again.code, 1);
    assert.match(again.stderr, /ERR_VOLUME_NOT_FOUND[\s\S]*postern volume create data/);
    await world.configure();
  });

  async function contents(offset: number, length: number): Promise<Buffer> {
    const guest = await world.startGuest();
    const disk = await DiskClient.connect(world.nbdSocket);
    const found = await disk.read(offset, length);
    disk.close();
    await guest.stop();
    return found;
  }
});

/** What is stored once the parent has done what it was asked to before. */
async function settled(folder: string): Promise<Buffer> {
  let earlier = await everything(folder);
  for (;;) {
    await setTimeout(200);
    const later = await everything(folder);
    if (later.equals(earlier)) return later;
    earlier = later;
  }
}

async function everything(folder: string): Promise<Buffer> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  return Buffer.concat(await Promise.all(files.map((file) => readFile(join(file.parentPath, file.name)))));
}
