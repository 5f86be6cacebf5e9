import assert from 'node:assert/strict';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import { OUTAGE_DEFAULT_MS } from '../../../guest/volume/limits.ts';
import { PartyProcess } from '../../../shared/demo/party.ts';
import { exerciseFileSystem, FILE_SYSTEMS } from '../../scenario/nbd/file-system.ts';
import { program } from '../../scenario/nbd/program.ts';
import { REPOSITORY } from '../kernel.ts';
import { growMounted } from './grow-mounted.ts';
import { requireVm } from './guard.ts';

requireVm();

const DEVICE = '/dev/nbd0';
const SECTOR_BYTES = 512;
const MIB = 1024 * 1024;
const SIZE_MIB = 512;
const GROWTH_MIB = 64;
const POSTERN = `${REPOSITORY}/shared/cli/postern.ts`;
/** Node starts some twenty times slower here. */
const STEP_TIMEOUT_MS = 180_000;
/** More than one attempt at the store, so that requests fail and are tried again. */
const AWAY_MS = 20_000;
const POLL_MS = 10;
/** How long the device stays open after all that waited for the dead agent has ended. */
const RELEASE_MS = 500;
const folder = mkdtempSync('/tmp/volume-');
const mountPoint = `${folder}/mounted`;

describe('a volume over AF_VSOCK on the kernel’s own nbd', () => {
  let parent: PartyProcess;
  let guest: PartyProcess;

  before(async () => {
    for (const name of ['objects', 'mounted']) mkdirSync(`${folder}/${name}`);
    mkdirSync(`${folder}/closed`, { mode: 0o700 });
    writeConfigurations();
    parent = await start('parent', 'parent.up');
    await volume('create', 'data', '--size', `${SIZE_MIB}MiB`);
    guest = await start('guest', 'volume.attached');
  });

  after(async () => {
    await guest?.stop();
    await parent?.stop();
  });

  for (const [index, kind] of FILE_SYSTEMS.entries()) {
    it(`${kind.name}: a tree, rewrites, trims, checks`, () => exerciseFileSystem(kind, DEVICE, mountPoint));

    it(`${kind.name}: grows while it is mounted and full`, async () => {
      const sizeMib = SIZE_MIB + index * GROWTH_MIB;
      assert.equal(deviceBytes(), sizeMib * MIB);
      await growMounted(kind, DEVICE, mountPoint, () => resize(sizeMib + GROWTH_MIB));
    });
  }

  it('is the same after it was detached and attached again', async () => {
    await guest.stop();
    guest = await start('guest', 'volume.attached');
    assert.equal(deviceBytes(), (SIZE_MIB + FILE_SYSTEMS.length * GROWTH_MIB) * MIB);
    await mounted(async () => {
      await program('diff', '-r', 'shared', `${mountPoint}/shared`);
      await program('sh', '-ec', `cd ${mountPoint} && sha256sum -c kept.sha256 grown.sha256`);
    });
  });

  it('waits longer for the agent than the agent for the store', () => {
    const kernelMs = Number(readFileSync('/sys/block/nbd0/queue/io_timeout', 'utf8'));
    assert.ok(kernelMs > 10 * OUTAGE_DEFAULT_MS, `${kernelMs} ms`);
  });

  it('waits for a parent that is killed under a mounted file system and comes back', async () => {
    await mounted(async () => {
      await program('sh', '-ec', `cd ${mountPoint} && dd if=/dev/urandom of=before bs=1M count=4 && sync`);
      await parent.kill();
      // What the kernel holds in memory is no proof of reads.
      writeFileSync('/proc/sys/vm/drop_caches', '3');
      const steps = ['cp before after', 'echo missed >>after', 'sync', 'sha256sum -c kept.sha256'];
      const script = `cd ${mountPoint}\n${steps.join('\n')}`;
      const application = new PartyProcess('application', ['sh', '-ec', script], STEP_TIMEOUT_MS);
      await sleep(AWAY_MS);
      parent = await start('parent', 'parent.up');
      assert.equal(await application.line(), 'kept: OK');
      await application.stop();
      await program('sh', '-ec', `cd ${mountPoint} && (cat before && echo missed) | cmp - after`);
    });
    await FILE_SYSTEMS.at(-1)?.checkDevice(DEVICE);
  });

  it('loses nothing that was synced when the agent is killed under a mounted file system that waits for it', async () => {
    await program('mount', DEVICE, mountPoint);
    await program(
      'sh',
      '-ec',
      `cd ${mountPoint} && cp -r ${REPOSITORY}/policies . && echo late >late && sync`,
    );
    const device = openSync(DEVICE, 'r');
    const { synced } = await killUnderWay(guest);
    // Both wait for the dead agent's answers, until the next one has taken the device; who has it open learns that later.
    const released = Promise.allSettled([synced, program('umount', mountPoint)])
      .then(() => sleep(RELEASE_MS))
      .then(() => closeSync(device));
    guest = await start('guest', 'volume.attached');
    await released;
    // The journal is replayed by the mount; afterwards nothing may be left to mend.
    await mounted(async () => {
      await program('diff', '-r', `${REPOSITORY}/policies`, `${mountPoint}/policies`);
      assert.equal(await program('cat', `${mountPoint}/late`), 'late\n');
      await program('sh', '-ec', `cd ${mountPoint} && sha256sum -c kept.sha256`);
    });
    await FILE_SYSTEMS.at(-1)?.checkDevice(DEVICE);
  });
});

/** Kills the agent while the kernel waits for its answer, for the sake of `synced`. */
async function killUnderWay(agent: PartyProcess): Promise<{ synced: Promise<string> }> {
  assert.ok(agent.pid !== undefined);
  process.kill(agent.pid, 'SIGSTOP');
  const synced = program('sh', '-c', `echo lost, perhaps >${mountPoint}/unsynced; sync`);
  while (/^\s*0\s+0\s*$/.test(readFileSync('/sys/block/nbd0/inflight', 'utf8'))) await sleep(POLL_MS);
  await agent.kill();
  return { synced };
}

function volume(...words: string[]): Promise<string> {
  return program(process.execPath, POSTERN, 'volume', ...words, '--config', `${folder}/guest.yaml`);
}

/** By the agent, which alone can tell the kernel; the command knows the device from its answer. */
async function resize(sizeMib: number): Promise<void> {
  const answer = JSON.parse(await volume('resize', 'data', `${sizeMib}MiB`, '--json'));
  assert.deepEqual(answer, { sizeBytes: sizeMib * MIB, device: DEVICE });
  assert.equal(deviceBytes(), sizeMib * MIB);
}

/** As the kernel has it. */
function deviceBytes(): number {
  return Number(readFileSync('/sys/block/nbd0/size', 'utf8')) * SECTOR_BYTES;
}

async function mounted(work: () => Promise<void>): Promise<void> {
  await program('mount', DEVICE, mountPoint);
  try {
    await work();
  } finally {
    await program('umount', mountPoint);
  }
}

async function start(name: 'parent' | 'guest', sign: string): Promise<PartyProcess> {
  const words = [process.execPath, POSTERN, name, '--config', `${folder}/${name}.yaml`];
  const party = new PartyProcess(name, words, STEP_TIMEOUT_MS);
  await party.logged(sign, (line) => (line.includes(`"${sign}"`) ? line : undefined));
  return party;
}

function writeConfigurations(): void {
  writeFileSync(`${folder}/closed/data.key`, `${'a5'.repeat(32)}\n`, { mode: 0o600 });
  writeFileSync(
    `${folder}/parent.yaml`,
    stringify({
      version: 1,
      state: `${folder}/closed/state`,
      listen: 'vsock:ANY:5000',
      admin: 'off',
      drainTimeoutMs: 1000,
      log: { format: 'json' },
      stores: { disk: { directory: { path: `${folder}/objects` } } },
      guests: { vm: { cid: 1, egress: { allow: [] }, objects: [{ store: 'disk', prefix: 'vm/' }] } },
    }),
  );
  writeFileSync(
    `${folder}/guest.yaml`,
    stringify({
      version: 1,
      parent: 'vsock:1:5000',
      sessionKey: `${folder}/closed/session.key`,
      policy: { version: 1, egress: { allow: [] } },
      log: { format: 'json' },
      volumes: {
        data: {
          prefix: 'vm/data',
          key: { file: `${folder}/closed/data.key` },
          anchor: { file: `${folder}/closed/anchor` },
          nbd: { device: DEVICE },
          takeover: true,
        },
      },
    }),
  );
}
