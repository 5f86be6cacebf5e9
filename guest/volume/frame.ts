import { freeBytes } from '../../shared/objects/bodies.ts';

/** A frame that is being fetched, or is there; its memory goes with whoever needs it last. */
export class Frame {
  /** Resolves when `bytes` is there. */
  opened: Promise<void> = Promise.resolve();
  #bytes: Buffer | undefined;
  #users = 1;
  #isCached = false;

  /** One user has it from the start. */
  constructor(bytes?: Buffer) {
    this.#bytes = bytes;
  }

  /** `onOpened` may put it into the cache before anybody can think it unused. */
  static fetched(opening: Promise<Buffer>, onOpened: (frame: Frame) => void): Frame {
    const frame = new Frame();
    frame.opened = opening.then((bytes) => {
      frame.#bytes = bytes;
      onOpened(frame);
      frame.#freeIfUnused();
    });
    return frame;
  }

  get bytes(): Buffer {
    if (this.#bytes === undefined) throw new RangeError('a frame that is not there any more');
    return this.#bytes;
  }

  get length(): number {
    return this.#bytes?.length ?? 0;
  }

  take(): this {
    this.#users += 1;
    return this;
  }

  release(): void {
    this.#users -= 1;
    this.#freeIfUnused();
  }

  setCached(isCached: boolean): void {
    this.#isCached = isCached;
    this.#freeIfUnused();
  }

  #freeIfUnused(): void {
    if (this.#users > 0 || this.#isCached || this.#bytes === undefined) return;
    freeBytes(this.#bytes);
    this.#bytes = undefined;
  }
}
