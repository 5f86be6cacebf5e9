import { isPosternError, PosternError } from '../../shared/errors.ts';
import type { Anchor, AnchorVolume } from '../counter/anchor.ts';
import { attemptAnchor } from './anchoring.ts';
import type { VolumeEnvironment } from './environment.ts';
import type { Health } from './health.ts';
import type { VolumeLimits } from './limits.ts';

export interface FenceWatchOptions {
  readonly anchor: Anchor;
  readonly volume: AnchorVolume;
  /** Of this attach. */
  readonly epoch: number;
  readonly environment: VolumeEnvironment;
  readonly limits: VolumeLimits;
  readonly health: Health;
}

/**
 * Has an instance that writes nothing learn that another took the volume: one that writes learns it with its next commit, one
 * that only reads would show an old state for ever. Asks the anchor every `fenceCheckMs`, so that this takes no longer than
 * that and one answer.
 */
export class FenceWatch {
  readonly #options: FenceWatchOptions;
  #cancel: () => void = () => undefined;

  constructor(options: FenceWatchOptions) {
    this.#options = options;
    options.health.onFailure(() => this.#cancel());
    this.#wait();
  }

  #wait(): void {
    const { environment, limits, health } = this.#options;
    if (health.state !== 'serving') return;
    this.#cancel = environment.clock.after(limits.fenceCheckMs, () => void this.#look());
  }

  async #look(): Promise<void> {
    const { anchor, volume, epoch, environment, limits, health } = this.#options;
    try {
      const head = await attemptAnchor(environment, limits, (signal) => anchor.read(volume, { signal }));
      if (head !== undefined && head.epoch > epoch) {
        const text = `the anchor is at commit ${head.epoch}-${head.seq}: another instance attached the volume`;
        health.fail(new PosternError('ERR_VOLUME_FENCED', text));
      }
    } catch (error) {
      // An anchor out of reach says nothing about who has the volume; a commit meets it on its own.
      if (!isPosternError(error)) throw error;
    }
    this.#wait();
  }
}
