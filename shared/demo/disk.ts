import { readdirSync, readFileSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { isPosternError, PosternError } from '../errors.ts';
import type { DemoFiles } from './files.ts';
import { MountedVolume, type MountOptions } from './mounted.ts';
import { Namespace } from './namespace.ts';
import { DemoDisk } from './nbd.ts';
import type { PartyProcess } from './party.ts';
import { describeWay, type Way } from './way.ts';
import { within } from './within.ts';

export const VOLUME_NAME = 'data';
const VOLUME_SIZE = '64MiB';
/** What a person would not want to be read on the parent. */
const SECRET = Buffer.from('the recipe is two parts of rum, one of lime, and a secret. ');
const WRITTEN = Buffer.alloc(1024 * 1024, SECRET);
const FILE_NAME = 'recipe.txt';
/** For writing the file to the disk, or reading it: some milliseconds, a second in an emulated machine. */
const FILE_TIMEOUT_MS = 30_000;
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
export type StartPostern = (...words: string[]) => PartyProcess;

export interface DiskShowOptions {
  readonly way: Way;
  readonly files: DemoFiles;
  readonly start: StartPostern;
  readonly say: (line: string) => void;
  readonly add: (result: DiskResult) => void;
}

/** Makes the volume, explicitly, as an owner does once. */
export async function createDemoVolume(start: StartPostern, files: DemoFiles): Promise<void> {
  const words = ['volume', 'create', VOLUME_NAME, '--size', VOLUME_SIZE, '--config', files.guest];
  await start(...words).line();
}

/** Writes to the volume, kills the guest, attaches it again, reads; then looks at what the parent has of it. */
export class DiskShow {
  readonly #options: DiskShowOptions;
  #space: Namespace | undefined;
  #mounted: MountedVolume | undefined;
  #isDeviceAbandoned = false;
  #replacement: Promise<PartyProcess> | undefined;
  #isClosing = false;

  constructor(options: DiskShowOptions) {
    this.#options = options;
  }

  async show(): Promise<void> {
    const { way, files, say, add } = this.#options;
    say(`\n${describeWay(way)}`);
    if (way.kind === 'raw') await this.#showBlocks(await this.#attach());
    else await this.#showFiles(way);
    add({ step: 'noise', target: 'the objects on the parent', result: describeObjects(files.objects) });
  }

  /** Unmounts and gives back what is left, at whatever moment the show ended; the parties must still be there. */
  async close(): Promise<void> {
    this.#isClosing = true;
    try {
      if (this.#isDeviceAbandoned) await (await this.#replace()).stop();
      else await this.#unmount();
    } finally {
      await this.#space?.close();
    }
  }

  async #showFiles(way: Exclude<Way, { kind: 'raw' }>): Promise<void> {
    const { files, say, add } = this.#options;
    this.#space = new Namespace('mount');
    await this.#space.ready();
    const nbdUri = `nbd+unix:///${VOLUME_NAME}?socket=${files.nbdSocket}`;
    const mount = { way, space: this.#space, folder: files.mounts, nbdUri };
    const first = await this.#attach();
    const target = way.kind === 'kernel' ? `ext4 on ${way.device}` : 'ext4 on a loop device';
    try {
      await this.#mount(mount, { format: true });
    } catch (error) {
      if (!isPosternError(error, 'ERR_DEMO_FAILED') || this.#isClosing) throw error;
      await this.#unmount();
      say(`  This machine cannot do that after all (${error.message}): by NBD requests alone.`);
      return this.#showBlocks(first);
    }
    await within(FILE_TIMEOUT_MS, `writing ${FILE_NAME}`, writeSynced(this.#path()));
    add({ step: 'disk', target, result: `${FILE_NAME}, ${WRITTEN.length} bytes written and synced` });
    // The kernel keeps the device for the dead agent until the next one takes it.
    this.#isDeviceAbandoned = way.kind === 'kernel';
    await first.kill();
    await this.#readAgain(mount);
  }

  async #readAgain(mount: MountOptions): Promise<void> {
    const second = await this.#replace();
    await this.#mount(mount, { format: false });
    this.#compare(await within(FILE_TIMEOUT_MS, `reading ${FILE_NAME}`, readFile(this.#path())));
    await this.#unmount();
    await second.stop();
  }

  /** The agent after one that was killed, and what that left mounted is no more. */
  #replace(): Promise<PartyProcess> {
    // The kernel may have asked the dead agent for something (ext4 clears its inode tables at leisure), and waits for the
    // answer until the next one takes the device: so may the unmount. The next one in turn waits for the unmount.
    this.#replacement ??= this.#isDeviceAbandoned
      ? Promise.all([this.#start(), this.#unmount()]).then(([next]) => next)
      : this.#unmount().then(() => this.#attach());
    return this.#replacement;
  }

  async #mount(mount: MountOptions, options: { readonly format: boolean }): Promise<void> {
    this.#assertGoesOn();
    this.#mounted = new MountedVolume(mount);
    await this.#mounted.open(options);
  }

  async #unmount(): Promise<void> {
    await this.#mounted?.close();
    this.#mounted = undefined;
  }

  #path(): string {
    return this.#mounted?.path(FILE_NAME) ?? '';
  }

  async #showBlocks(first: PartyProcess): Promise<void> {
    const { files, add } = this.#options;
    const disk = await DemoDisk.open(files.nbdSocket, VOLUME_NAME);
    await disk.write(OFFSET, WRITTEN);
    await disk.flush();
    const result = `${WRITTEN.length} bytes written and flushed`;
    add({ step: 'disk', target: `NBD export ${VOLUME_NAME}`, result });
    await first.kill();
    const second = await this.#attach();
    const again = await DemoDisk.open(files.nbdSocket, VOLUME_NAME);
    this.#compare(await again.read(OFFSET, WRITTEN.length));
    again.close();
    disk.close();
    await second.stop();
  }

  #compare(found: Buffer): void {
    const result = found.equals(WRITTEN) ? `the same ${found.length} bytes` : 'other bytes';
    this.#options.add({ step: 'crash', target: 'after kill -9 of the guest', result });
  }

  async #attach(): Promise<PartyProcess> {
    this.#assertGoesOn();
    return this.#start();
  }

  #assertGoesOn(): void {
    if (this.#isClosing) throw new PosternError('ERR_DEMO_FAILED', 'the demo was interrupted');
  }

  async #start(): Promise<PartyProcess> {
    const { start, files } = this.#options;
    const guest = start('guest', '--config', files.disk);
    await guest.logged('that the volume is attached', (line) =>
      line.includes('"volume.attached"') ? line : undefined,
    );
    this.#isDeviceAbandoned = false;
    return guest;
  }
}

async function writeSynced(path: string): Promise<void> {
  const file = await open(path, 'wx');
  try {
    await file.writeFile(WRITTEN);
    await file.sync();
  } finally {
    await file.close();
  }
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
