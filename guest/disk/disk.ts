import { isPosternError, PosternError } from '../../shared/errors.ts';
import type { Logger } from '../../shared/log.ts';
import type { Listener } from '../../shared/transport/transport.ts';
import type { Audit } from '../audit.ts';
import type { Attachment } from '../nbd/attach.ts';
import { NbdServer } from '../nbd/server.ts';
import type { OrderDone, VolumeOrder } from '../status/order.ts';
import { attachVolume } from '../volume/attach.ts';
import type { VolumeAccess } from '../volume/create.ts';
import type { Volume } from '../volume/engine.ts';
import { createSnapshot, deleteSnapshot } from '../volume/snapshot.ts';
import { type VolumeStats, volumeStats } from '../volume/stats.ts';
import type { VolumeConfig } from './config.ts';
import { attachDevice, mountsOf } from './device.ts';
import { assertMode } from './mode.ts';

/** For requests that clients have under way when the disk goes away. */
const GRACE_MS = 2_000;
/** Storing what is dirty; shorter than a service manager's patience (90 s). What was flushed is safe in any case. */
const DETACH_TIMEOUT_MS = 30_000;

export interface DiskOptions {
  readonly name: string;
  readonly config: VolumeConfig;
  readonly access: VolumeAccess;
  readonly audit: Audit;
  readonly logger: Logger;
}

/** What `postern guest status` shows of a volume. */
export interface DiskReport {
  readonly name: string;
  /** `serving`; `poisoned` and `fenced` volumes are served no more; `closed` was detached. */
  readonly state: string;
  readonly sizeBytes: number;
  readonly epoch: number;
  readonly socket?: string;
  readonly device?: string;
  readonly reason?: string;
  readonly stats: VolumeStats;
}

/** One volume of the configuration: attached, and served over NBD until it is closed or can promise nothing more. */
export class Disk {
  readonly #options: DiskOptions;
  readonly #volume: Volume;
  readonly #server: NbdServer;
  #listener: Listener | undefined;
  #attachment: Attachment | undefined;
  #failure: PosternError | undefined;
  #isClosing = false;

  private constructor(options: DiskOptions, volume: Volume) {
    this.#options = options;
    this.#volume = volume;
    this.#server = new NbdServer({ log: options.logger });
    volume.parts.health.onFailure((error) => this.#failed(error));
  }

  /**
   * Attaches the volume and serves it where the configuration says. After a throw it is detached again.
   * @throws PosternError ERR_VOLUME_*, ERR_ANCHOR_*, ERR_STORE_*, ERR_NBD_*, ERR_TRANSPORT_*
   */
  static async open(options: DiskOptions): Promise<Disk> {
    const { access, config, name } = options;
    const volume = await attachVolume({ ...access, takeover: config.takeover }).catch((error: unknown) => {
      throw withAdvice(error, name);
    });
    const disk = new Disk(options, volume);
    try {
      assertMode(name, volume.parts.header.mode, config.mode);
      await disk.#serve();
    } catch (error) {
      await disk.close();
      throw error;
    }
    return disk;
  }

  get report(): DiskReport {
    return { ...this.#facts, stats: volumeStats(this.#volume) };
  }

  get #facts(): Omit<DiskReport, 'stats'> {
    const { health, epoch } = this.#volume.parts;
    const { name, config } = this.#options;
    const { socket } = config.nbd;
    return {
      name,
      state: health.state,
      sizeBytes: this.#volume.sizeBytes,
      epoch,
      ...(socket === undefined ? {} : { socket }),
      ...(this.#attachment === undefined ? {} : { device: this.#attachment.path }),
      ...(this.#failure === undefined ? {} : { reason: this.#failure.message }),
    };
  }

  /** While it is served. @throws PosternError ERR_VOLUME_* */
  async carryOut(order: VolumeOrder): Promise<OrderDone> {
    switch (order.order) {
      case 'resize':
        await this.#grow(order.sizeBytes);
        break;
      case 'snapshot':
        await createSnapshot(this.#volume, order.snapshot);
        break;
      case 'drop-snapshot':
        await deleteSnapshot(this.#volume, order.snapshot);
        break;
    }
    const { sizeBytes, device } = this.report;
    return { sizeBytes, ...(device === undefined ? {} : { device }) };
  }

  /** Serves no longer, stores what is dirty and gives the volume up. Never throws for what the store or the kernel does. */
  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    await this.#withdraw();
    if (this.#failure === undefined) await this.#detach();
    this.#volume.close();
  }

  async #serve(): Promise<void> {
    const { name, config, audit } = this.#options;
    const { socket, device } = config.nbd;
    const served = { name, description: `Postern volume ${name}`, device: this.#volume };
    this.#server.add(served);
    if (socket !== undefined) this.#listener = await this.#server.listen(socket);
    if (device !== undefined) this.#attachment = await attachDevice(this.#server, served, device);
    audit.event('info', 'volume.attached', `volume ${name} is attached`, this.#facts);
  }

  /** The kernel's device has the new size at once, other NBD clients when they connect again: their protocol has no word for it. */
  async #grow(sizeBytes: number): Promise<void> {
    const { name, audit } = this.#options;
    await this.#volume.grow(sizeBytes);
    audit.event('info', 'volume.resized', `volume ${name} has ${sizeBytes} bytes`, {
      volume: name,
      sizeBytes,
    });
    try {
      await this.#attachment?.resize();
    } catch (error) {
      if (!isPosternError(error)) throw error;
      const text = `volume ${name} has ${sizeBytes} bytes, its device only when it is attached again: ${error.message}`;
      throw new PosternError(error.code, text, { cause: error });
    }
  }

  async #withdraw(): Promise<void> {
    const attachment = this.#attachment;
    if (attachment !== undefined) await this.#takeDevice(attachment);
    await this.#listener?.close();
    await this.#server.close(GRACE_MS);
  }

  async #takeDevice(attachment: Attachment): Promise<void> {
    const { name, audit } = this.#options;
    const mounts = await mountsOf(attachment.path);
    if (mounts.length > 0) {
      const text = `${attachment.path} goes away while it is mounted: what was not synced is lost; unmount it before`;
      audit.event('error', 'volume.mounted', text, { volume: name, mounts });
    }
    try {
      // The kernel waits for requests under way; if one hangs, closing the server ends it.
      await Promise.race([attachment.detach(), wait(GRACE_MS)]);
    } catch (error) {
      if (!isPosternError(error)) throw error;
      audit.event('warn', 'volume.failed', error.message, { volume: name, code: error.code });
    }
  }

  async #detach(): Promise<void> {
    const { name, audit } = this.#options;
    try {
      await Promise.race([this.#volume.detach(), late()]);
      audit.event('info', 'volume.detached', `volume ${name} is detached`, { volume: name });
    } catch (error) {
      if (!isPosternError(error)) throw error;
      const text = `volume ${name} was not detached: the next attach needs takeover: ${error.message}`;
      audit.event('error', 'volume.failed', text, { volume: name, code: error.code });
    }
  }

  /** Fenced or poisoned: nobody may take it for a disk any longer. */
  #failed(error: PosternError): void {
    if (this.#isClosing || this.#failure !== undefined) return;
    this.#failure = error;
    const { name, audit } = this.#options;
    const { state } = this.#volume.parts.health;
    const text = `volume ${name} is ${state} and served no more: ${error.message}`;
    audit.event('error', 'volume.evicted', text, { volume: name, state, code: error.code });
    void this.#server.remove(name, GRACE_MS);
  }
}

function withAdvice(error: unknown, name: string): unknown {
  if (!isPosternError(error, 'ERR_VOLUME_IN_USE')) return error;
  const text = `volume ${name} was not detached: another instance has it, or its last one crashed. volumes.${name}.takeover: true attaches it all the same and shuts the other out`;
  return new PosternError('ERR_VOLUME_IN_USE', text, { cause: error });
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}

async function late(): Promise<never> {
  await wait(DETACH_TIMEOUT_MS);
  throw new PosternError('ERR_VOLUME_UNAVAILABLE', `not stored within ${DETACH_TIMEOUT_MS} ms`);
}
