import { join } from 'node:path';
import { attachIn, createIn, type Setting, startParent } from './contestants.ts';
import { fio, median } from './measure.ts';

const GIB = 2 ** 30;
const SIZES = [
  { name: '1 GiB', sizeBytes: GIB },
  { name: '1 TiB', sizeBytes: 1024 * GIB },
];
const ATTACHES = 5;
/** Scattered over the whole device, so that the index is as deep and as sparse as it gets. */
const SCATTER = {
  name: 'scatter',
  fio: ['--rw=randwrite', '--bs=64k', '--iodepth=16', '--number_ios=1000', '--end_fsync=1'],
  unit: 'op/s',
} as const;

/** How long our attach takes (locate, claim, commit, anchor; not the start of Node), after scattered writes. */
export async function attachTimes(setting: Setting, print: (line: string) => void): Promise<void> {
  print('\nattach with 62 MiB scattered over the volume, ms (median, slowest)');
  for (const kind of ['directory', 's3'] as const) {
    for (const { name, sizeBytes } of SIZES) {
      const folder = join(setting.folder, `attach-${kind}-${name.replace(' ', '')}`);
      const here = { ...setting, folder, sizeBytes };
      const parent = await startParent(here, kind);
      try {
        await createIn(here);
        const times = await timesOf(folder, sizeBytes);
        const slowest = Math.max(...times).toFixed(0);
        print(
          `  ${`${name}, ${kind}`.padEnd(22)}${median(times).toFixed(0).padStart(6)}${slowest.padStart(6)}`,
        );
      } finally {
        await parent.stop();
      }
    }
  }
}

async function timesOf(folder: string, sizeBytes: number): Promise<number[]> {
  const writer = await attachIn(folder);
  await fio(writer.nbdSocket, SCATTER, sizeBytes, undefined);
  await writer.detach();
  const times: number[] = [];
  for (let attach = 0; attach < ATTACHES; attach += 1) {
    const guest = await attachIn(folder);
    times.push(guest.attachMs);
    await guest.detach();
  }
  return times;
}
