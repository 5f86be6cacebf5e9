import { access, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { isPosternError, PosternError } from '../../shared/errors.ts';
import { type Attachment, attach, disconnect } from '../nbd/attach.ts';
import type { NbdExport } from '../nbd/export.ts';
import type { NbdServer } from '../nbd/server.ts';
import { DEVICE } from './config.ts';

/**
 * How long the users of a device that was taken from a dead agent have to let go of it. What they had asked that agent fails
 * only then, and an unmount under way ends with it: milliseconds, seconds where many such requests fail one after the other.
 */
const RELEASE_TIMEOUT_MS = 5_000;
const RELEASE_POLL_MS = 20;

/**
 * The kernel's device over an export: `auto` takes a free one, a path takes exactly that one. A device that an agent which
 * was killed left behind is taken from it, which ends whatever still waits for that agent's answers.
 * @throws PosternError ERR_NBD_*
 */
export async function attachDevice(
  server: NbdServer,
  served: NbdExport,
  device: string,
): Promise<Attachment> {
  const index = indexOf(device);
  if (index === undefined) return attach(server, served);
  try {
    return await attach(server, served, { index });
  } catch (error) {
    if (!isPosternError(error, 'ERR_NBD_BUSY') || !(await isAbandoned(index))) throw error;
    await disconnect(index);
    await released(index);
    try {
      return await attach(server, served, { index });
    } catch (again) {
      if (!isPosternError(again, 'ERR_NBD_BUSY')) throw again;
      const text = `${device} still belongs to an agent that is gone, and is open or mounted: unmount it first`;
      throw new PosternError('ERR_NBD_BUSY', text, { cause: again });
    }
  }
}

function indexOf(device: string): number | undefined {
  const digits = DEVICE.exec(device)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** Resolves when nobody has the device any more, not even open, or the time for that is over. */
async function released(index: number): Promise<void> {
  const deadline = performance.now() + RELEASE_TIMEOUT_MS;
  while ((await hasOwner(index)) && performance.now() < deadline) await sleep(RELEASE_POLL_MS);
}

/** The kernel shows a `pid` until the device is neither connected nor open. */
function hasOwner(index: number): Promise<boolean> {
  return access(`/sys/block/nbd${index}/pid`).then(
    () => true,
    () => false,
  );
}

/** Whether the process that connected the device is gone: the kernel keeps the device for it until it is told. */
async function isAbandoned(index: number): Promise<boolean> {
  const text = await readFile(`/sys/block/nbd${index}/pid`, 'utf8').catch(() => undefined);
  const pid = Number(text?.trim());
  if (!Number.isSafeInteger(pid) || pid < 1) return false;
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

/** Where the device is mounted: what must be unmounted before it is taken away. */
export async function mountsOf(device: string): Promise<string[]> {
  const text = await readFile('/proc/self/mounts', 'utf8').catch(() => '');
  return text
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([source]) => source === device)
    .map(([, target]) => target ?? '');
}
