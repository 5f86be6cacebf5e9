import type { Volume } from '../../../guest/volume/engine.ts';
import { collectGarbage } from '../../../guest/volume/gc.ts';
import { rekey } from '../../../guest/volume/rekey.ts';
import { createSnapshot, deleteSnapshot, restoreSnapshot } from '../../../guest/volume/snapshot.ts';
import type { Random } from '../../../shared/objects/random.ts';
import type { BlockModel } from './model.ts';

/** Snapshots, restores, collections and new keys, with nothing else under way; and what the model has to know of them. */
export class Maintenance {
  readonly #model: BlockModel;
  readonly #random: Random;
  /** What each snapshot that was ever begun holds, should it exist. */
  readonly images = new Map<string, ReadonlyMap<number, Buffer>>();
  #count = 0;
  counts = { snapshots: 0, restores: 0, collections: 0, rekeys: 0 };

  constructor(model: BlockModel, random: Random) {
    this.#model = model;
    this.#random = random;
  }

  /** One piece of maintenance. Throws what the engine throws. */
  async run(volume: Volume): Promise<void> {
    const names = volume.parts.checkpointer.snapshots.map(({ name }) => name);
    const chosen = names[Math.floor(this.#random() * names.length)];
    const chance = this.#random();
    if (chance < 0.35 && names.length < 4) await this.#snapshot(volume);
    else if (chance < 0.42 && chosen !== undefined) await deleteSnapshot(volume, chosen);
    else if (chance < 0.75 && chosen !== undefined) await this.#restore(volume, chosen);
    else if (chance < 0.9) await this.#collect(volume);
    else await this.#rekey(volume);
  }

  async #snapshot(volume: Volume): Promise<void> {
    this.#count += 1;
    const name = `snapshot ${this.#count}`;
    this.images.set(name, this.#model.image());
    const mark = this.#model.mark();
    await createSnapshot(volume, name);
    this.#model.flushed(mark);
    this.counts.snapshots += 1;
  }

  async #restore(volume: Volume, name: string): Promise<void> {
    const image = this.images.get(name) ?? new Map();
    this.#model.setImage(image, false);
    await restoreSnapshot(volume, name);
    this.#model.setImage(image, true);
    this.counts.restores += 1;
  }

  async #collect(volume: Volume): Promise<void> {
    await collectGarbage(volume, { dryRun: false });
    this.counts.collections += 1;
  }

  async #rekey(volume: Volume): Promise<void> {
    await rekey(volume);
    this.counts.rekeys += 1;
  }
}
