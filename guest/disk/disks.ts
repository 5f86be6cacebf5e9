import { PosternError } from '../../shared/errors.ts';
import type { Logger } from '../../shared/log.ts';
import { wrapStore } from '../../shared/objects/around.ts';
import type { Audit } from '../audit.ts';
import type { Relay } from '../objects/client.ts';
import type { OrderDone, VolumeOrder } from '../status/order.ts';
import { accessOf } from './access.ts';
import type { VolumesConfig } from './config.ts';
import { Disk, type DiskReport } from './disk.ts';
import { keepMemorySmall } from './process-memory.ts';

export interface DisksOptions {
  readonly volumes: VolumesConfig;
  readonly relay: Relay;
  readonly audit: Audit;
  readonly logger: Logger;
  /** Where keys of kind `env` are looked up. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** The volumes of the configuration, which share one relay. */
export class Disks {
  readonly #options: DisksOptions;
  readonly #disks: Disk[] = [];
  #attaching: Promise<void> = Promise.resolve();
  #isClosed = false;

  constructor(options: DisksOptions) {
    keepMemorySmall();
    this.#options = options;
  }

  get reports(): readonly DiskReport[] {
    return this.#disks.map(({ report }) => report);
  }

  /**
   * Attaches and serves every volume; the session must be up.
   * @throws PosternError of the first that cannot be; those before it stay until `close`
   */
  async attach(): Promise<void> {
    const attaching = this.#attachAll();
    this.#attaching = attaching.catch(() => {});
    return attaching;
  }

  /** @throws PosternError ERR_VOLUME_CLOSED when no such volume is attached, and what the volume fails with */
  async carryOut(order: VolumeOrder): Promise<OrderDone> {
    const disk = this.#disks.find(({ report }) => report.name === order.volume);
    if (disk === undefined)
      throw new PosternError('ERR_VOLUME_CLOSED', `the agent has no volume ${order.volume} attached`);
    return disk.carryOut(order);
  }

  /** The session is lost: its object streams are not answered any more. The next request opens them anew. */
  sessionLost(): void {
    this.#options.relay.close();
  }

  /** Detaches every volume; one that is being attached gives up. */
  async close(): Promise<void> {
    await Promise.all(this.#disks.map((disk) => disk.close()));
    this.#isClosed = true;
    this.#options.relay.close();
    await this.#attaching;
    await Promise.all(this.#disks.map((disk) => disk.close()));
  }

  async #attachAll(): Promise<void> {
    const { volumes, relay, logger, audit, environment } = this.#options;
    // Final, where the relay's own "not now" would be tried again for a minute.
    const store = wrapStore(relay.store, (call, run) => {
      if (this.#isClosed) throw new PosternError('ERR_VOLUME_CLOSED', 'the agent stops');
      return run(call.signal);
    });
    const surroundings = { store, logger, environment };
    for (const [name, config] of Object.entries(volumes)) {
      const access = accessOf(name, config, surroundings);
      this.#disks.push(await Disk.open({ name, config, access, audit, logger }));
    }
  }
}

/** The environment without the variables that hold keys: those are for the agent alone, not for the workload. */
export function withoutKeys(
  environment: Readonly<Record<string, string | undefined>>,
  volumes: VolumesConfig,
): Record<string, string | undefined> {
  const rest = { ...environment };
  for (const { key } of Object.values(volumes)) if (key.kind === 'env') delete rest[key.variable];
  return rest;
}
