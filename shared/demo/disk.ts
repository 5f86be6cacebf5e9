import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import type { DemoFiles } from './files.ts';
import { DemoDisk } from './nbd.ts';
import type { PartyProcess } from './party.ts';

export const VOLUME_NAME = 'data';
const VOLUME_SIZE = '64MiB';
/** What a person would not want to be read on the parent. */
const SECRET = Buffer.from('the recipe is two parts of rum, one of lime, and a secret. ');
const WRITTEN = Buffer.alloc(1024 * 1024, SECRET);
/** Behind the first blocks, and aligned to nothing. */
const OFFSET = 12_345;
/** What deflate leaves of random bytes is a little more than all of them. */
const NOISE_RATIO = 0.99;

export interface DiskResult {
  readonly step: 'disk' | 'crash' | 'noise';
  readonly target: string;
  readonly result: string;
}

/** Starts a party of the demo: `postern WORDS`. */
export type StartPostern = (party: 'guest', ...words: string[]) => PartyProcess;

/** Makes the volume, explicitly, as an owner does once. */
export async function createDemoVolume(start: StartPostern, files: DemoFiles): Promise<void> {
  await start(
    'guest',
    'volume',
    'create',
    VOLUME_NAME,
    '--size',
    VOLUME_SIZE,
    '--config',
    files.guest,
  ).line();
}

/** Writes to the volume, kills the guest, attaches it again, reads; then looks at what the parent has of it. */
export async function showDisk(
  start: StartPostern,
  files: DemoFiles,
  add: (result: DiskResult) => void,
): Promise<void> {
  const first = await attach(start, files);
  const disk = await DemoDisk.open(files.nbdSocket, VOLUME_NAME);
  await disk.write(OFFSET, WRITTEN);
  await disk.flush();
  add({
    step: 'disk',
    target: `NBD export ${VOLUME_NAME}`,
    result: `${WRITTEN.length} bytes written and flushed`,
  });
  await first.kill();
  const second = await attach(start, files);
  const again = await DemoDisk.open(files.nbdSocket, VOLUME_NAME);
  const found = await again.read(OFFSET, WRITTEN.length);
  again.close();
  disk.close();
  const result = found.equals(WRITTEN) ? `the same ${found.length} bytes` : 'other bytes';
  add({ step: 'crash', target: 'after kill -9 of the guest', result });
  await second.stop();
  add({ step: 'noise', target: 'the objects on the parent', result: describeObjects(files.objects) });
}

async function attach(start: StartPostern, files: DemoFiles): Promise<PartyProcess> {
  const guest = start('guest', 'guest', '--config', files.guest);
  await guest.logged('that the volume is attached', (line) =>
    line.includes('"volume.attached"') ? line : undefined,
  );
  return guest;
}

function describeObjects(folder: string): string {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  const objects = entries
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(join(entry.parentPath, entry.name)));
  const bytes = Buffer.concat(objects);
  if (bytes.indexOf(SECRET.subarray(0, 16)) !== -1) return 'the plaintext is among them';
  const ratio = deflateSync(bytes).length / bytes.length;
  const word = ratio >= NOISE_RATIO ? 'noise' : 'not noise';
  return `${word}: ${objects.length} objects, no plaintext, deflated to ${(ratio * 100).toFixed(1)} %`;
}
