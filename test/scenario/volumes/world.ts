import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { PartyProcess } from '../../../shared/demo/party.ts';

export const POSTERN = fileURLToPath(new URL('../../../shared/cli/postern.ts', import.meta.url));
/** Much longer than a step takes: nothing here is judged by time. */
const STEP_TIMEOUT_MS = 60_000;

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Waits until the guest has attached its volume. */
export function attached(guest: PartyProcess): Promise<PartyProcess> {
  return saidBy(guest, '"volume.attached"');
}

async function saidBy(party: PartyProcess, sign: string): Promise<PartyProcess> {
  await party.logged(sign, (line) => (line.includes(sign) ? line : undefined));
  return party;
}

/** A parent with a directory store and a guest with one volume `data`, as real processes over unix sockets. */
export class VolumeWorld {
  readonly folder: string;
  readonly #running = new Set<PartyProcess>();

  readonly #store: object;

  private constructor(folder: string, store: object) {
    this.folder = folder;
    this.#store = store;
  }

  /** @param store an entry of the parent's `stores`; a folder of its own by default */
  static async make(store?: object): Promise<VolumeWorld> {
    const folder = await mkdtemp(join(tmpdir(), 'postern-volumes-'));
    const world = new VolumeWorld(folder, store ?? { directory: { path: join(folder, 'objects') } });
    await mkdir(world.path('objects'));
    await writeFile(world.path('data.key'), `${'5a'.repeat(32)}\n`, { mode: 0o600 });
    await writeFile(world.path('parent.yaml'), stringify(world.#parentConfig()));
    await world.configure();
    return world;
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  get nbdSocket(): string {
    return this.path('data.nbd');
  }

  /** Writes the guest's configuration with changes to its one volume. */
  async configure(volume: Record<string, unknown> = {}): Promise<void> {
    await writeFile(this.path('guest.yaml'), stringify(this.#guestConfig(volume)));
  }

  startParent(): Promise<PartyProcess> {
    return saidBy(this.#spawn('parent'), '"parent.up"');
  }

  /** Resolves when the volume is attached and served. */
  startGuest(): Promise<PartyProcess> {
    return attached(this.spawnGuest());
  }

  /** On its way to attach the volume. */
  spawnGuest(): PartyProcess {
    return this.#spawn('guest');
  }

  /** `postern volume ARGS --config …`. */
  volume(...args: string[]): Promise<Ran> {
    return this.run('volume', ...args, '--config', this.path('guest.yaml'));
  }

  run(...args: string[]): Promise<Ran> {
    return new Promise((resolve) => {
      execFile(process.execPath, [POSTERN, ...args], (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
      });
    });
  }

  async remove(): Promise<void> {
    for (const party of [...this.#running].reverse()) await party.kill();
    await rm(this.folder, { recursive: true, force: true });
  }

  #spawn(party: 'parent' | 'guest'): PartyProcess {
    const words = [process.execPath, POSTERN, party, '--config', this.path(`${party}.yaml`)];
    const started = new PartyProcess(party, words, STEP_TIMEOUT_MS);
    this.#running.add(started);
    return started;
  }

  #parentConfig(): object {
    return {
      version: 1,
      state: this.path('state'),
      admin: 'off',
      log: { format: 'json' },
      drainTimeoutMs: 1000,
      stores: { disk: this.#store },
      guests: {
        web: {
          listen: `unix:${this.path('parent.sock')}`,
          egress: { allow: [] },
          objects: [{ store: 'disk', prefix: 'web/' }],
        },
      },
    };
  }

  #guestConfig(volume: Record<string, unknown>): object {
    return {
      version: 1,
      parent: `unix:${this.path('parent.sock')}`,
      sessionKey: this.path('run/session.key'),
      policy: { version: 1, egress: { allow: [] } },
      log: { format: 'json' },
      volumes: {
        data: {
          prefix: 'web/data',
          key: { file: this.path('data.key') },
          anchor: { file: this.path('anchor') },
          nbd: { socket: this.nbdSocket },
          ...volume,
        },
      },
    };
  }
}
