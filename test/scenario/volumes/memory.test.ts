import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { program } from '../nbd/program.ts';
import { VolumeWorld } from './world.ts';

const IS_SLOW = process.env['SLOW'] === '1';
/** What is written in all; how long each of the other workloads runs. */
const WRITTEN_MIB = IS_SLOW ? 10_240 : 2048;
const SECONDS = IS_SLOW ? 20 : 4;
const MOST_MIB = 256;

let world: VolumeWorld;
before(async () => {
  world = await VolumeWorld.make();
});
after(() => world.remove());

const WORKLOADS: readonly (readonly string[])[] = [
  ['--rw=write', '--bs=1m', '--iodepth=4', '--fsync=64'],
  ['--rw=randwrite', '--bs=4k', '--iodepth=16'],
  ['--rw=randread', '--bs=4k', '--iodepth=16'],
  ['--rw=randrw', '--bs=64k', '--iodepth=16'],
  ['--rw=read', '--bs=1m', '--iodepth=4'],
  ['--rw=randwrite', '--bs=4k', '--fsync=1', '--numjobs=8'],
  ['--rw=randwrite', '--bs=1m', '--iodepth=4'],
  ['--rw=read', '--bs=128k', '--iodepth=16'],
  ['--rw=write', '--bs=1m', '--iodepth=32'],
  ['--rw=read', '--bs=1m', '--iodepth=32'],
  ['--rw=randrw', '--bs=4m', '--iodepth=8'],
];

test(`an agent with a volume of 1 TiB keeps to ${MOST_MIB} MiB, whatever is written and read`, async (t) => {
  const made = await world.startParent();
  const created = await world.volume('create', 'data', '--size', '1TiB');
  assert.equal(created.code, 0, created.stderr);
  const guest = await world.startGuest();
  const where = ['--name=memory', '--ioengine=nbd', `--uri=nbd+unix:///?socket=${world.nbdSocket}`];
  const [fill = [], ...others] = WORKLOADS;
  await program('fio', ...where, ...fill, `--size=${WRITTEN_MIB}m`, '--refill_buffers');
  const peaks = [await peakMib(guest.pid)];
  for (const workload of others) {
    const time = ['--time_based', `--runtime=${SECONDS}`];
    await program('fio', ...where, ...workload, ...time, `--size=${WRITTEN_MIB}m`, '--refill_buffers');
    peaks.push(await peakMib(guest.pid));
  }
  t.diagnostic(
    `${WRITTEN_MIB} MiB written, most memory after each workload, MiB: ${peaks.map(Math.round).join(' ')}`,
  );
  assert.ok(Math.max(...peaks) < MOST_MIB);
  await guest.stop();
  await made.stop();
});

/** The most that the process ever had in memory, pages of the program included. */
async function peakMib(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) / 1024;
}
