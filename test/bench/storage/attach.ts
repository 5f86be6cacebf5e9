import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { attachIn, createIn, type Setting, startParent } from './contestants.ts';
import { fio, median, peakMemoryMib, print } from './measure.ts';

const GIB = 2 ** 30;
const ATTACHES = 5;
/** What every volume has written to it at least. */
const LEAST_MIB = 64;

interface Case {
  readonly kind: 'directory' | 's3';
  readonly sizeBytes: number;
  readonly writtenMib: number;
}

/**
 * How long our attach takes (locate, claim, commit, anchor; not the start of Node), after writes that were scattered over the
 * whole device, so that the index is as deep and as sparse as it gets. The large one is in a directory: the radosgw's
 * memory does not hold it.
 */
export async function attachTimes(setting: Setting, mostMib: number): Promise<void> {
  print(
    '\nattach after writes scattered over the volume, ms (median, slowest); most memory of the writing guest, MiB',
  );
  const cases: Case[] = [];
  for (const kind of ['directory', 's3'] as const) {
    for (const gib of [1, 100, 1024]) cases.push({ kind, sizeBytes: gib * GIB, writtenMib: LEAST_MIB });
  }
  cases.push({ kind: 'directory', sizeBytes: 1024 * GIB, writtenMib: mostMib });
  for (const [index, one] of cases.entries()) {
    const folder = join(setting.folder, `attach-${index}`);
    const here = { ...setting, folder, sizeBytes: one.sizeBytes };
    const parent = await startParent(here, one.kind);
    try {
      await createIn(here);
      report(one, await timesOf(folder, one));
    } finally {
      await parent.stop();
      await rm(folder, { recursive: true });
    }
  }
}

async function timesOf(
  folder: string,
  { sizeBytes, writtenMib }: Case,
): Promise<{ times: number[]; mib: number }> {
  const writer = await attachIn(folder);
  // 64 KiB where that is quick; 1 MiB where there is much of it.
  const kib = writtenMib > LEAST_MIB ? 1024 : 64;
  const count = (writtenMib * 1024) / kib;
  const options = ['--rw=randwrite', `--bs=${kib}k`, '--iodepth=8', `--number_ios=${count}`, '--end_fsync=1'];
  await fio(writer.nbdSocket, { name: 'scatter', fio: options, unit: 'op/s' }, sizeBytes, undefined);
  const [mib = Number.NaN] = await peakMemoryMib([writer.child.pid ?? 0]);
  await writer.detach();
  const times: number[] = [];
  for (let attach = 0; attach < ATTACHES; attach += 1) {
    const guest = await attachIn(folder);
    times.push(guest.attachMs);
    await guest.detach();
  }
  return { times, mib };
}

function report(
  { kind, sizeBytes, writtenMib }: Case,
  { times, mib }: { times: number[]; mib: number },
): void {
  const cells = [median(times), Math.max(...times), mib].map((cell) => cell.toFixed(0).padStart(7));
  print(`  ${`${sizeBytes / GIB} GiB, ${kind}, ${writtenMib} MiB written`.padEnd(44)}${cells.join('')}`);
}
