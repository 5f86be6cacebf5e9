import type { Anchor } from '../../../guest/counter/anchor.ts';
import type { VolumeAccess } from '../../../guest/volume/create.ts';
import { type Around, wrapStore } from '../../../shared/objects/around.ts';

/**
 * Every call of a volume to its store and its anchor is two steps: before it is done, and after. At step `diesAt` this very
 * process is killed.
 */
export class Mortal {
  readonly #diesAt: number;
  steps = 0;

  constructor(diesAt: number) {
    this.#diesAt = diesAt;
  }

  wrap<T extends VolumeAccess>(access: T): T {
    const around: Around = (call, run) => this.#call(() => run(call.signal));
    const { anchor } = access;
    if (anchor === undefined) throw new Error('these volumes have an anchor');
    return { ...access, store: wrapStore(access.store, around), anchor: this.#wrapAnchor(anchor) };
  }

  #wrapAnchor(anchor: Anchor): Anchor {
    return {
      capabilities: anchor.capabilities,
      create: (volume, first) => this.#call(() => anchor.create(volume, first)),
      read: (volume, options) => this.#call(() => anchor.read(volume, options)),
      advance: (volume, step, options) => this.#call(() => anchor.advance(volume, step, options)),
    };
  }

  async #call<T>(run: () => Promise<T>): Promise<T> {
    this.#step();
    const answer = await run();
    this.#step();
    return answer;
  }

  #step(): void {
    this.steps += 1;
    if (this.steps === this.#diesAt) process.kill(process.pid, 'SIGKILL');
  }
}
