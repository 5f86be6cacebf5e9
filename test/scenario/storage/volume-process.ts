import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { ObjectCounts } from '../../../guest/volume/objects.ts';
import type { VolumePlace } from './served-volume.ts';

const PARENT = fileURLToPath(new URL('../object-parent.ts', import.meta.url));
const GUEST = fileURLToPath(new URL('./serve-volume.ts', import.meta.url));

/** A process that says when it is ready, and ends when it is told to. */
export class ServingProcess {
  readonly child: ChildProcess;
  readonly #exited: Promise<unknown>;

  protected constructor(child: ChildProcess) {
    this.child = child;
    this.#exited = once(child, 'exit');
  }

  /** Starts a script that writes a line when it serves. */
  static async script(path: string, args: readonly string[]): Promise<ServingProcess> {
    const child = spawn(process.execPath, [path, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    await Promise.race([once(child.stdout, 'data'), once(child, 'exit')]);
    assert.equal(child.exitCode, null, `${path} did not start`);
    return new ServingProcess(child);
  }

  /** The parent's relay to a directory store, on a unix socket. */
  static directoryParent(folder: string, socket: string): Promise<ServingProcess> {
    return ServingProcess.script(PARENT, [folder, socket]);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal);
    await this.#exited;
  }
}

/** The guest with the volume attached, served at `nbdSocket`. */
export class VolumeProcess extends ServingProcess {
  readonly nbdSocket: string;
  readonly attachMs: number;

  private constructor(child: ChildProcess, nbdSocket: string, attachMs: number) {
    super(child);
    this.nbdSocket = nbdSocket;
    this.attachMs = attachMs;
  }

  /** `takeover`: from one that was killed. */
  static async start(place: VolumePlace, nbdSocket: string, how?: 'takeover'): Promise<VolumeProcess> {
    const args = [GUEST, place.parentSocket, place.anchorFolder, nbdSocket, ...(how ? [how] : [])];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    const first = await Promise.race([once(child, 'message'), once(child, 'exit').then(() => undefined)]);
    if (first === undefined) throw new Error(`the volume did not attach, exit code ${child.exitCode}`);
    return new VolumeProcess(child, nbdSocket, (first[0] as { attachMs: number }).attachMs);
  }

  async counts(): Promise<ObjectCounts> {
    const answer = once(this.child, 'message');
    this.child.send('counts');
    return (await answer)[0];
  }

  /** Detaches the volume. @throws when it could not */
  async detach(): Promise<void> {
    await this.stop();
    assert.equal(this.child.exitCode, 0, 'the volume was not detached');
  }
}
